"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const coarse = matchMedia("(pointer: coarse)").matches;
  const axes = { images: "images seen", epoch: "epochs", views: "views through the encoder", seconds: "seconds in training" };
  let axis = "images";

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

  // A copy in which every "$name" is the colour of that name in the theme of now.
  const paint = (x) => {
    if (Array.isArray(x)) return x.map(paint);
    if (x && typeof x === "object") return Object.fromEntries(Object.entries(x).map(([k, v]) => [k, paint(v)]));
    return typeof x === "string" && /^\$[a-z0-9]+$/.test(x) ? css(x.slice(1)) : x;
  };

  const base = (narrow) => ({
    font: { family: getComputedStyle(document.body).fontFamily, size: narrow ? 12 : 13, color: css("ink") },
    paper_bgcolor: css("card"), plot_bgcolor: css("card"), dragmode: coarse ? false : "zoom", hovermode: "closest",
    margin: { l: 12, r: 16, t: 16, b: 12 },
    legend: { orientation: "h", y: -0.02, yref: "container", yanchor: "bottom", x: 0, font: { size: 12 } },
    hoverlabel: { bgcolor: css("card"), bordercolor: css("line"), font: { color: css("ink") } },
  });

  const axisLook = () => ({
    gridcolor: css("grid"), linecolor: css("line"), zerolinecolor: css("line"), tickcolor: css("line"),
    automargin: true, tickfont: { color: css("muted") }, title: { font: { color: css("muted"), size: 12.5 }, standoff: 10 },
  });

  const merge = (a, b) => {
    const out = { ...a };
    for (const [k, v] of Object.entries(b || {}))
      out[k] = v && typeof v === "object" && !Array.isArray(v) && a[k] && typeof a[k] === "object" ? merge(a[k], v) : v;
    return out;
  };

  const draw = (id) => {
    const place = document.getElementById(id), figure = paint(figures[id]);
    const layout = merge(base(place.clientWidth < 480), figure.layout);
    layout.xaxis = merge(axisLook(), layout.xaxis);
    layout.yaxis = merge({ ...axisLook(), exponentformat: "power" }, layout.yaxis);
    layout.width = place.clientWidth;
    if (layout.title) {
      layout.title = { ...layout.title, font: { size: 14, color: css("ink") }, x: 0, xref: "paper", y: 1, yref: "container", yanchor: "top", pad: { t: 14 } };
      layout.margin.t = 44;
    }
    if (layout.showlegend ?? figure.data.length > 1) layout.margin.b = 12 + legendHeight(figure, place.clientWidth);
    if (figure.curves) {
      for (const trace of figure.data) trace.x = trace.meta[axis];
      layout.xaxis = merge(layout.xaxis, { title: { text: axes[axis] }, rangemode: "tozero" });
    }
    return Plotly.react(place, figure.data, layout, { displayModeBar: false, responsive: false });
  };

  // Room for the legend below the horizontal axis, by the rows that its names will need.
  const legendHeight = (figure, width) => {
    const shown = figure.data.filter((t) => t.showlegend !== false);
    const widest = Math.max(...shown.map((t) => 7.2 * t.name.length + 52));
    return 34 + 20 * Math.ceil(shown.length / Math.max(1, Math.floor((width - 30) / widest)));
  };

  const drawAll = () => Promise.all(Object.keys(figures).map(draw));

  for (const input of document.querySelectorAll("input[name=axis]"))
    input.addEventListener("change", () => {
      axis = input.value;
      Object.keys(figures).filter((id) => figures[id].curves).forEach(draw);
    });

  const follow = (map) => {
    const plot = map.querySelector(".plot"), peek = map.querySelector(".peek");
    const across = Number(map.dataset.across), labels = JSON.parse(map.dataset.labels);
    const points = figures[plot.id].data.flatMap((t, curve) => t.x.map((x, i) => ({ x, curve, i, cell: t.customdata[i] })));
    points.sort((a, b) => a.x - b.x);
    let at = -1;
    const show = (cell) => {
      const picture = peek.firstElementChild, last = Math.max(1, across - 1);
      picture.style.backgroundSize = across * 100 + "%";
      picture.style.backgroundPosition = `${(100 * (cell % across)) / last}% ${(100 * Math.floor(cell / across)) / last}%`;
      peek.lastElementChild.textContent = labels[cell];
      peek.hidden = false;
      at = points.findIndex((p) => p.cell === cell);
    };
    plot.on("plotly_hover", (event) => show(event.points[0].customdata));
    plot.on("plotly_click", (event) => show(event.points[0].customdata));
    map.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const p = points[(at + step + points.length) % points.length];
      show(p.cell);
      Plotly.Fx.hover(plot, [{ curveNumber: p.curve, pointNumber: p.i }]);
    });
  };

  let waiting, width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return; // a phone's address bar comes and goes
    width = innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(drawAll, 150);
  });
  dark.addEventListener("change", drawAll);
  drawAll().then(() => {
    document.querySelectorAll(".map").forEach(follow);
    document.documentElement.dataset.drawn = Object.keys(figures).length;
  });
})();
