"use strict";
(() => {
  const source = document.getElementById("figures").textContent;
  const axes = { images: "images seen", epoch: "epochs", views: "views through the encoder", seconds: "seconds in training" };
  const coarse = matchMedia("(pointer: coarse)").matches;
  let axis = "images";
  let figures;

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

  // Every string "$name" is the colour of that name in the theme of now.
  const painted = () => JSON.parse(source.replace(/"\$(\w+)"/g, (_, name) => JSON.stringify(css(name))));

  const template = (narrow) => {
    const [ink, muted, line, card] = ["ink", "muted", "line", "card"].map(css);
    const axis = {
      gridcolor: css("grid"), showline: true, linecolor: line, zerolinecolor: line, tickcolor: line, tickfont: { color: muted },
      automargin: true, title: { font: { color: muted, size: 12.5 }, standoff: 10 }, exponentformat: "power",
    };
    return { layout: {
      font: { family: getComputedStyle(document.body).fontFamily, size: narrow ? 12 : 13, color: ink },
      paper_bgcolor: card, plot_bgcolor: card, hovermode: "closest", dragmode: coarse ? false : "zoom",
      title: { font: { size: 14, color: ink }, x: 0, xref: "paper", y: 1, yref: "container", yanchor: "top", pad: { t: 14 } },
      legend: { orientation: "h", x: 0, y: 0, yref: "container", yanchor: "bottom", font: { size: 12 } },
      hoverlabel: { bgcolor: card, bordercolor: line, font: { color: ink } },
      xaxis: axis, yaxis: axis,
    } };
  };

  const draw = (id) => {
    const place = document.getElementById(id), { data, layout, curves } = figures[id];
    layout.template = template(place.clientWidth < 480);
    layout.margin = { l: 12, r: 16, t: layout.title ? 44 : 16, b: 12 };
    if (curves) {
      for (const trace of data) trace.x = trace.meta[axis];
      layout.xaxis = { title: { text: axes[axis] }, rangemode: "tozero" };
    }
    return Plotly.react(place, data, layout, { displayModeBar: false, responsive: true });
  };

  const drawAll = () => {
    figures = painted();
    return Promise.all(Object.keys(figures).map(draw));
  };

  for (const input of document.querySelectorAll("input[name=axis]"))
    input.addEventListener("change", () => {
      axis = input.value;
      Object.keys(figures).filter((id) => figures[id].curves).forEach(draw);
    });

  const follow = (map) => {
    const plot = map.querySelector(".plot"), [picture, text] = map.querySelector(".peek").children;
    const across = Number(map.dataset.across), labels = JSON.parse(map.dataset.labels);
    const points = figures[plot.id].data.flatMap((t, curve) => t.x.map((x, i) => ({ x, curve, i, cell: t.customdata[i] })));
    points.sort((a, b) => a.x - b.x);
    let at = -1;
    const show = (cell) => {
      const last = Math.max(1, across - 1);
      picture.style.backgroundSize = across * 100 + "%";
      picture.style.backgroundPosition = `${(100 * (cell % across)) / last}% ${(100 * Math.floor(cell / across)) / last}%`;
      text.textContent = labels[cell];
      picture.parentElement.hidden = false;
      at = points.findIndex((p) => p.cell === cell);
    };
    for (const name of ["plotly_hover", "plotly_click"]) plot.on(name, (event) => show(event.points[0].customdata));
    map.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const p = points[(at + step + points.length) % points.length];
      show(p.cell);
      Plotly.Fx.hover(plot, [{ curveNumber: p.curve, pointNumber: p.i }]);
    });
  };

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  drawAll().then(() => {
    document.querySelectorAll(".map").forEach(follow);
    document.documentElement.dataset.drawn = Object.keys(figures).length;
  });
})();
