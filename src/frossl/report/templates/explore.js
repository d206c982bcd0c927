"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const NOWHERE = 65535, SHOWN = 120;
  const $ = (id) => document.getElementById(id);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const small = (text) => new Uint16Array(bytes(text).buffer);

  // A sheet becomes a blob once: a data URI in every style would be decoded for each thumbnail.
  const sheets = [...document.querySelectorAll("script.sheet")].map((node) => {
    const [head, body] = node.textContent.split(",");
    return URL.createObjectURL(new Blob([bytes(body)], { type: head.slice(5).split(";")[0] }));
  });
  const classes = small(data.class), splits = bytes(data.split), per = data.across ** 2;
  const encoders = data.encoders.map((e) => ({
    ...e, x: small(e.x), y: small(e.y), cluster: small(e.cluster), doubt: bytes(e.doubt),
  }));
  let encoder = encoders[0], selected = new Set();

  const thumbnail = (i, node = document.createElement("span")) => {
    node.className = "thumb";
    if (i >= data.thumbnails) {
      node.classList.add("none");
      node.style.backgroundImage = "";
      return node;
    }
    const at = i % per, step = 100 / (data.across - 1);
    node.style.backgroundImage = `url(${sheets[Math.floor(i / per)]})`;
    node.style.backgroundSize = `${data.across * 100}%`;
    node.style.backgroundPosition = `${step * (at % data.across)}% ${step * Math.floor(at / data.across)}%`;
    return node;
  };
  const element = (tag, name, text = "") => {
    const node = document.createElement(tag);
    node.className = name;
    node.textContent = text;
    return node;
  };
  const card = (i, ...notes) => {
    const figure = element("figure", "card"), caption = element("figcaption", "");
    const picture = thumbnail(i);
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", data.paths[i]);
    figure.title = data.paths[i];
    caption.append(element("span", "label", data.paths[i].split("/").pop()));
    for (const note of [data.labels[i] ?? "", ...notes]) if (note) caption.append(element("span", "note", note));
    figure.append(picture, caption);
    return figure;
  };
  const strip = (title, cards) => {
    const part = element("div", "");
    const row = element("div", "strip");
    row.append(...cards);
    part.append(element("h4", "", title), row);
    return part;
  };

  const showLists = () => {
    const { lists } = encoder;
    const put = (id, nodes, nothing) => {
      const place = $("list-" + id);
      if (place) place.replaceChildren(...(nodes.length ? nodes : [element("p", "", nothing)]));
    };
    const split = (i) => ["", "train", "held-out"][splits[i]];
    put("groups", lists.groups.map((g, n) => {
      const across = new Set(g.images.map(split)).size > 1 ? ", across splits" : "";
      const kinds = new Set(g.images.map((i) => data.labels[i]).filter(Boolean)).size > 1 ? ", labels differ" : "";
      const title = `Group ${n + 1} of ${encoder.groups}: ${g.size} images, pixel correlation ${g.alike}${across}${kinds}`;
      return strip(title, g.images.map((i, k) => card(i, split(i), k ? "" : "keep")));
    }), data.thumbnails ? "None found." : "Not searched, as the images are not available.");
    const gallery = (cards) => cards.length ? [strip("", cards)] : [];
    put("doubted", gallery(lists.doubted.map((row) =>
      card(row.i, `rather ${row.believed}: ${Math.round(row.p * 100)} %, label ${Math.round(row.given * 100)} %`))), "None.");
    put("outliers", gallery(lists.outliers.map((row) => card(row.i, row.score.toFixed(2)))), "None.");
    put("clusters", lists.clusters.flatMap((c, n) => [
      strip(`Cluster ${n + 1}: ${c.size.toLocaleString("en")} images, typical`, c.typical.map((i) => card(i))),
      ...(c.odd.length ? [strip("odd", c.odd.map((i) => card(i)))] : []),
    ]), "None.");
    put("first", gallery(lists.first.map((i) => card(i))), "None.");
  };

  // The map.
  const canvas = $("points"), pen = canvas.getContext("2d"), peek = document.querySelector(".peek");
  const choice = (name) => document.querySelector(`input[name=${name}]:checked`)?.value;
  const whole = { left: 0, top: 0, width: NOWHERE, height: NOWHERE };
  let view = whole, path = null, cursor = null;
  const pad = 14;
  const toX = (x) => pad + ((x - view.left) / view.width) * (canvas.clientWidth - 2 * pad);
  const toY = (y) => canvas.clientHeight - pad - ((y - view.top) / view.height) * (canvas.clientHeight - 2 * pad);
  const there = (i) => encoder.x[i] !== NOWHERE || encoder.y[i] !== NOWHERE;

  // The group of each image by the chosen colour, and names and colours of the groups.
  const hue = (n) => `hsl(${Math.round((n * 360 * 0.618) % 360)} 62% ${n % 2 ? 62 : 46}%)`;
  const palette = (names) => names.map((_, n) => (names.length <= 10 ? css("c" + n) : hue(n)));
  const groups = () => {
    const kind = choice("colour"), muted = css("muted");
    if (kind === "class") return { of: classes, names: ["no label", ...data.classes], paint: [muted, ...palette(data.classes)] };
    if (kind === "split") return { of: splits, names: ["", "train", "held-out"], paint: [muted, css("c0"), css("c1")] };
    if (kind === "doubt") {
      const of = encoder.doubt.map((d) => (d === 0 ? 0 : d < 96 ? 1 : d < 128 ? 2 : 3));
      const names = ["no label", "label believed", "unsure", "another class believed"];
      return { of, names, paint: [muted, css("c0"), css("c5"), css("bad")] };
    }
    const names = encoder.lists.clusters.map((_, n) => `cluster ${n + 1}`);
    return { of: encoder.cluster, names, paint: palette(names) };
  };

  const draw = () => {
    const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    pen.scale(ratio, ratio);
    const { of, paint } = groups(), n = encoder.x.length;
    const side = n > 20000 ? 2 : n > 2000 ? 3 : 5;
    pen.globalAlpha = selected.size ? 0.25 : 0.8;
    const dot = (i, side) => {
      if (!there(i)) return;
      pen.fillStyle = paint[of[i]];
      pen.fillRect(toX(encoder.x[i]) - side / 2, toY(encoder.y[i]) - side / 2, side, side);
    };
    for (let i = 0; i < n; i++) dot(i, side);
    pen.globalAlpha = 1;
    for (const i of selected) dot(i, side + 2);
    pen.strokeStyle = css("accent");
    pen.lineWidth = 2;
    if (path) {
      pen.beginPath();
      corners().forEach(([x, y]) => pen.lineTo(x, y));
      pen.closePath();
      pen.stroke();
    }
    if (cursor) {
      pen.beginPath();
      pen.arc(cursor.x, cursor.y, cursor.r, 0, 2 * Math.PI);
      pen.stroke();
    }
    document.documentElement.dataset.points = n;
  };
  const legend = () => {
    const { of, names, paint } = groups(), counts = names.map(() => 0);
    of.forEach((g, i) => { if (there(i)) counts[g]++; });
    $("legend").replaceChildren(...names.flatMap((name, g) => {
      if (!counts[g]) return [];
      const button = element("button", ""), dot = element("i", "");
      button.type = "button";
      dot.style.background = paint[g];
      button.append(dot, `${name || "no split"} ${counts[g].toLocaleString("en")}`);
      button.addEventListener("click", () => select([...of.keys()].filter((i) => of[i] === g && there(i))));
      return [button];
    }));
    $("about-map").textContent = `${encoder.map} of ${encoder.name}. Shift adds to what is selected.`;
  };
  const refresh = () => { draw(); legend(); };

  const corners = () => {
    if (choice("tool") === "lasso") return path;
    const [[a, b], [c, d]] = [path[0], path[path.length - 1]];
    return [[a, b], [c, b], [c, d], [a, d]];
  };
  const inside = (polygon, x, y) => {
    let odd = false;
    for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
      const [[a, b], [c, d]] = [polygon[i], polygon[j]];
      if (b > y !== d > y && x < ((c - a) * (y - b)) / (d - b) + a) odd = !odd;
    }
    return odd;
  };
  const within = (test) => [...encoder.x.keys()].filter((i) => there(i) && test(toX(encoder.x[i]), toY(encoder.y[i])));

  const select = (images, add = false) => {
    selected = new Set(add ? [...selected, ...images] : images);
    const listed = [...selected], more = listed.length - SHOWN;
    $("selected").textContent = listed.length
      ? `${listed.length.toLocaleString("en")} images selected${more > 0 ? `, the first ${SHOWN} shown` : ""}`
      : "Nothing selected";
    $("chosen").replaceChildren(...listed.slice(0, SHOWN).map((i) => card(i)));
    for (const id of ["copy", "save", "clear"]) $(id).disabled = !listed.length;
    document.documentElement.dataset.selected = listed.length;
    draw();
  };
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const showNearest = ([x, y]) => {
    let best = -1, near = 144;
    for (let i = 0; i < encoder.x.length; i++) {
      if (!there(i)) continue;
      const far = (toX(encoder.x[i]) - x) ** 2 + (toY(encoder.y[i]) - y) ** 2;
      if (far < near) [best, near] = [i, far];
    }
    peek.hidden = best < 0;
    if (best < 0) return;
    thumbnail(best, peek.children[0]);
    peek.children[1].textContent = [data.paths[best].split("/").pop(), data.labels[best]].filter(Boolean).join(": ");
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.isTrusted) canvas.setPointerCapture(event.pointerId);
    cursor = null;
    path = [place(event)];
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!path) return showNearest(place(event));
    path.push(place(event));
    requestAnimationFrame(draw);
  });
  canvas.addEventListener("pointerup", (event) => {
    if (!path) return;
    const polygon = corners();
    path = null;
    select(polygon.length > 2 ? within((x, y) => inside(polygon, x, y)) : [], event.shiftKey);
  });
  canvas.addEventListener("pointercancel", () => { path = null; draw(); });
  canvas.addEventListener("pointerleave", () => { if (!path) peek.hidden = true; });
  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!moves && !["+", "-", "Enter", " ", "Escape"].includes(event.key)) return;
    event.preventDefault();
    cursor ??= { x: canvas.clientWidth / 2, y: canvas.clientHeight / 2, r: 30 };
    if (moves) {
      cursor.x = Math.min(canvas.clientWidth, Math.max(0, cursor.x + 12 * moves[0]));
      cursor.y = Math.min(canvas.clientHeight, Math.max(0, cursor.y + 12 * moves[1]));
      showNearest([cursor.x, cursor.y]);
    } else if (event.key === "+") cursor.r *= 1.25;
    else if (event.key === "-") cursor.r = Math.max(5, cursor.r / 1.25);
    else if (event.key === "Escape") return select([]);
    else return select(within((x, y) => (x - cursor.x) ** 2 + (y - cursor.y) ** 2 <= cursor.r ** 2), event.shiftKey);
    draw();
  });

  $("zoom").addEventListener("click", () => {
    const images = [...selected].filter(there);
    if (!images.length) return;
    const range = (values) => images.reduce(([a, b], i) => [Math.min(a, values[i]), Math.max(b, values[i])], [NOWHERE, 0]);
    const [[left, right], [top, bottom]] = [range(encoder.x), range(encoder.y)];
    view = { left, top, width: Math.max(1, right - left), height: Math.max(1, bottom - top) };
    draw();
  });
  $("whole").addEventListener("click", () => { view = whole; draw(); });
  $("clear").addEventListener("click", () => select([]));
  $("copy").addEventListener("click", async () => {
    const text = [...selected].map((i) => data.paths[i]).join("\n");
    try {
      await navigator.clipboard.writeText(text);
    } catch { // a page from a file may not, in some browsers
      const area = element("textarea", "", text);
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    $("copy").textContent = "Copied";
    setTimeout(() => { $("copy").textContent = "Copy paths"; }, 1500);
  });
  $("save").addEventListener("click", () => {
    const cell = (text) => (/[",\n]/.test(text ?? "") ? `"${text.replaceAll('"', '""')}"` : text ?? "");
    const rows = ["path,label", ...[...selected].map((i) => `${cell(data.paths[i])},${cell(data.labels[i])}`)];
    const link = element("a", "");
    link.href = URL.createObjectURL(new Blob([rows.join("\n") + "\n"], { type: "text/csv" }));
    link.download = "selection.csv";
    link.click();
  });
  for (const input of document.querySelectorAll("input[name=colour]")) input.addEventListener("change", refresh);
  for (const input of document.querySelectorAll("input[name=encoder]"))
    input.addEventListener("change", () => {
      encoder = encoders[Number(input.value)];
      view = whole;
      refresh();
      showLists();
    });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
  new ResizeObserver(draw).observe(canvas);
  refresh();
  showLists();
  document.documentElement.dataset.drawn = 1;
})();
