"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const find = (id) => document.getElementById(id);
  const table = find("table");
  const bodies = [...table.tBodies];
  const drawn = new Map(); // row -> colour and dashes, in the order in which rows were ticked
  const state = { metric: 0, sort: null, descending: false };

  // ---- figures as people read them

  const PREFIXES = [[1e21, "Z"], [1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
  const short = (value) => {
    for (const [size, prefix] of PREFIXES) if (Math.abs(value) >= size) return trim(value / size) + " " + prefix;
    return value && Math.abs(value) < 1e-3 ? value.toExponential(1).replace("-", "−") : trim(value);
  };
  const trim = (value) => String(+value.toPrecision(4)).replace("-", "−");

  // ---- a chart: lines within bands, on axes that fit, with a cursor that reads them

  const SVG = "http://www.w3.org/2000/svg";
  const draw = (parent, name, attributes, text) => {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return parent.appendChild(node);
  };

  const linearTicks = (low, high, most) => {
    const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((digit) => digit * power >= rough);
    const ticks = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high * (1 + 1e-9) + step * 1e-9; i++) ticks.push(+(i * step).toPrecision(12));
    return ticks;
  };
  const logTicks = (low, high, most) => {
    for (const digits of [[1, 1.5, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 5], [1, 2, 5], [1, 3], [1]]) {
      const ticks = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
        for (const digit of digits) {
          const tick = +(digit * 10 ** power).toPrecision(6);
          if (tick >= low && tick <= high) ticks.push(tick);
        }
      if (ticks.length <= most && ticks.length >= 2) return ticks;
    }
    return linearTicks(low, high, most);
  };

  const bentTicks = (low, high, most, place) => {
    const ticks = [0], room = Math.abs(place(high) - place(low)) / (1.5 * most);
    for (let power = 7; power >= -3; power--)
      for (const digit of [5, 2, 1])
        for (const tick of [digit * 10 ** power, -digit * 10 ** power])
          if (tick >= low && tick <= high && ticks.every((other) => Math.abs(place(tick) - place(other)) > room)) ticks.push(tick);
    return ticks;
  };

  // "bent" is linear about 0 and logarithmic far from it
  const scale = (values, kind, from, to) => {
    let low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
    if (kind === "log" && low <= 0) kind = "linear";
    const sizes = values.map(Math.abs).filter(Boolean).sort((a, b) => a - b), unit = sizes[sizes.length >> 2] || 1;
    const bend = { linear: (value) => value, log: Math.log, bent: (value) => Math.asinh(value / unit) }[kind];
    if (low === high) [low, high] = kind === "log" ? [low / 1.1, high * 1.1] : [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
    const [a, b] = [bend(low), bend(high)];
    const place = (value) => from + (bend(value) - a) / (b - a) * (to - from);
    place.ticks = (most) => ({ linear: linearTicks, log: logTicks, bent: bentTicks })[kind](low, high, most, place);
    return place;
  };

  const chart = (box, lines, { xlabel, ylabel, kind = "linear", height = 320, zero = false, empty }) => {
    box.replaceChildren();
    lines = lines.filter((line) => line.x.length);
    if (!lines.length) {
      const said = box.appendChild(document.createElement("p"));
      said.className = "empty";
      said.textContent = empty;
      return;
    }
    const width = Math.max(260, box.clientWidth), left = 52, right = 18, top = 22, bottom = 42;
    const x = scale(lines.flatMap((line) => line.x), "linear", left, width - right);
    const y = scale([...lines.flatMap((line) => [...line.low, ...line.high]), ...(zero ? [0] : [])], kind, height - bottom, top);
    const svg = draw(box, "svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${ylabel} against ${xlabel}` });
    for (const tick of y.ticks(Math.round(height / 50))) {
      draw(svg, "path", { class: "grid", d: `M${left} ${y(tick)}H${width - right}` });
      draw(svg, "text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, short(tick));
    }
    for (const tick of x.ticks(Math.max(3, Math.round(width / 110))))
      draw(svg, "text", { x: x(tick), y: height - bottom + 18, "text-anchor": "middle" }, short(tick));
    draw(svg, "text", { x: width - right, y: height - 5, "text-anchor": "end" }, xlabel);
    draw(svg, "text", { x: left - 44, y: 11 }, ylabel);
    for (const line of lines) {
      const there = line.x.map((value, i) => `${x(value).toFixed(1)} ${y(line.high[i]).toFixed(1)}`);
      const back = line.x.map((value, i) => `${x(value).toFixed(1)} ${y(line.low[i]).toFixed(1)}`).reverse();
      if (line.low.some((low, i) => low !== line.high[i])) draw(svg, "path", { class: "band", d: `M${there.join("L")}L${back.join("L")}Z` }).style.fill = line.colour;
    }
    for (const line of lines) {
      const at = line.x.map((value, i) => `${x(value).toFixed(1)} ${y(line.mean[i]).toFixed(1)}`);
      const path = draw(svg, "path", { class: "curve", d: `M${at.join("L")}`, "stroke-dasharray": line.dashes });
      path.style.stroke = line.colour;
    }
    read(box, svg, lines, x, height - bottom, top, xlabel);
  };

  const read = (box, svg, lines, x, bottom, top, xlabel) => {
    const cursor = draw(svg, "path", { class: "cursor" });
    const tip = box.appendChild(document.createElement("div"));
    tip.className = "tip";
    const hide = () => { tip.hidden = true; cursor.setAttribute("d", "M0 0"); };
    const show = (event) => {
      const at = event.clientX - svg.getBoundingClientRect().left;
      const nearest = (values) => values.reduce((best, value, i) => (Math.abs(x(value) - at) < Math.abs(x(values[best]) - at) ? i : best), 0);
      const every = lines.flatMap((line) => line.x), where = every[nearest(every)];
      const rows = lines.map((line) => ({ line, i: nearest(line.x) })).filter(({ line, i }) => Math.abs(x(line.x[i]) - x(where)) < 12);
      rows.sort((a, b) => b.line.mean[b.i] - a.line.mean[a.i]);
      tip.replaceChildren();
      const head = tip.appendChild(document.createElement("div"));
      head.textContent = `${short(where)} ${xlabel}`;
      for (const { line, i } of rows) {
        const row = tip.appendChild(document.createElement("div"));
        row.appendChild(document.createElement("i")).style.background = line.colour;
        row.appendChild(document.createElement("span")).textContent = line.label;
        row.appendChild(document.createElement("b")).textContent = short(line.mean[i]);
      }
      cursor.setAttribute("d", `M${x(where)} ${top}V${bottom}`);
      tip.hidden = false;
      const room = box.clientWidth - tip.offsetWidth;
      tip.style.left = Math.max(0, Math.min(room, x(where) > box.clientWidth / 2 ? x(where) - tip.offsetWidth - 14 : x(where) + 14)) + "px";
    };
    hide();
    svg.addEventListener("pointermove", show);
    svg.addEventListener("pointerdown", show);
    svg.addEventListener("pointerleave", hide);
  };

  // ---- the charts of the ticked rows

  const line = (row, of, x) => ({ ...of, x: x || of.x, label: data.rows[row].label, ...drawn.get(row) });
  const NOTHING = "Nothing was measured for the rows that are ticked.";

  const courses = () => {
    const against = find("against").value, metric = +find("course").value, lines = [];
    for (const row of drawn.keys()) {
      const { courses, flops } = data.rows[row], of = courses[metric];
      if (!of || (against === "flops" && !flops)) continue;
      lines.push(line(row, of, { images: of.x, seconds: of.seconds, flops: of.x.map((images) => images * flops) }[against]));
    }
    const xlabel = { images: data.counted, seconds: "seconds of training", flops: "FLOPs" }[against];
    const empty = "No ticked row has measured this more than once while training.";
    chart(find("courses"), lines, { xlabel, ylabel: data.metrics[metric].name, kind: find("log").checked ? "log" : "linear", height: innerWidth < 600 ? 300 : 380, empty });
  };

  const noise = () => {
    const relative = find("relative")?.checked, which = relative ? "relative" : "noise";
    const lines = [...drawn.keys()].filter((row) => data.rows[row][which][state.metric]).map((row) => line(row, data.rows[row][which][state.metric]));
    const name = data.metrics[state.metric]?.name;
    chart(find("noise"), lines, { xlabel: "log-SNR", ylabel: relative ? "% of the baseline" : name, kind: relative ? "bent" : "log", empty: `${name ?? "This"} is not ${relative ? "given in % of the baseline" : "measured"} per noise level.` });
  };

  const density = () => {
    const lines = [...drawn.keys()].filter((row) => data.rows[row].density).map((row) => line(row, data.rows[row].density));
    chart(find("density"), lines, { xlabel: "log-SNR", ylabel: "share per unit", zero: true, empty: NOTHING });
  };

  const redraw = () => { courses(); noise(); density(); };

  const tick = (row, on) => {
    find("draw" + row).checked = on;
    if (!on) drawn.delete(row);
    else if (!drawn.has(row)) {
      const taken = new Set([...drawn.values()].map(({ slot }) => slot));
      let slot = 0;
      while (taken.has(slot)) slot++;
      const own = row === data.baseline;
      const dashes = ["none", "7 4", "2 4", "9 3 2 3"][Math.floor(slot / 7) % 4];
      drawn.set(row, own ? { slot: -1, colour: "var(--ink)", dashes: "none" } : { slot, colour: `var(--c${slot % 7})`, dashes });
    }
    const box = find("draw" + row);
    box.style.accentColor = on ? drawn.get(row).colour : "";
  };

  const legend = () => {
    find("drawn").replaceChildren(...[...drawn].map(([row, { colour, dashes }]) => {
      const span = document.createElement("span"), svg = draw(span, "svg", { width: 22, height: 8, "aria-hidden": true });
      draw(svg, "path", { d: "M1 4H21", "stroke-width": 3, "stroke-dasharray": dashes }).style.stroke = colour;
      span.append(data.rows[row].label + (row === data.baseline ? " (baseline)" : ""));
      return span;
    }));
  };

  // ---- the table: sorted, filtered, opened

  const value = (body, key) => {
    const cell = key === "choice" ? body.querySelector("th.choice") : body.querySelector(`[data-key="${key}"]`);
    const raw = cell?.dataset.v;
    return raw === undefined ? null : key === "choice" || key === "state" ? raw : +raw;
  };

  const sort = (key, descending) => {
    Object.assign(state, { sort: key, descending });
    const sign = descending ? -1 : 1;
    const order = bodies.map((body) => [value(body, key), body]);
    order.sort(([a, first], [b, second]) => {
      if (a === null || b === null) return (a === null) - (b === null) || first.dataset.row - second.dataset.row;
      const by = typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
      return sign * by || first.dataset.row - second.dataset.row;
    });
    table.append(...order.map(([, body]) => body));
    for (const head of table.tHead.rows[0].cells) {
      if (head.querySelector("button")?.dataset.sort === key) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  };

  const words = bodies.map((body) => [...body.querySelectorAll("th.choice, .state, code, .run > p")].map((node) => node.textContent).join(" ").toLowerCase());
  const filter = () => {
    const asked = find("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const settings = [...document.querySelectorAll("[data-setting]")].filter((select) => select.value);
    const wanted = find("state")?.value;
    let count = 0;
    bodies.forEach((body, i) => {
      const row = data.rows[body.dataset.row];
      const shown = asked.every((word) => words[i].includes(word)) && (!wanted || row.states.includes(wanted)) &&
        settings.every((select) => row.settings[select.dataset.setting] === select.value);
      body.hidden = !shown;
      count += shown;
      const grid = document.querySelector(`figure[data-of="${body.dataset.row}"]`);
      if (grid) grid.hidden = !shown;
    });
    find("count").textContent = count === bodies.length ? "" : `${count} of ${bodies.length} rows`;
  };

  const choose = (metric) => {
    state.metric = metric;
    const rules = document.styleSheets[0].cssRules;
    rules[rules.length - 2].selectorText = `.full:not(.m${metric})`;
    rules[rules.length - 1].selectorText = `.brief.m${metric}`;
    find("course").value = metric;
    sort("v" + metric, data.metrics[metric].better === "higher");
    redraw();
  };

  const copy = async (button) => {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "copied";
    } catch { // where a page may not: it can be selected by hand
      const body = button.closest("tbody"), details = body.querySelector(".details");
      if (details.hidden) body.querySelector(".more").click();
      getSelection().selectAllChildren(details.querySelector("code"));
      button.textContent = "selected";
    }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  };

  table.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.sort) sort(button.dataset.sort, state.sort === button.dataset.sort && !state.descending);
    if (button.dataset.copy) copy(button);
    if (button.classList.contains("more")) {
      const details = find(button.getAttribute("aria-controls"));
      details.hidden = !details.hidden;
      button.setAttribute("aria-expanded", !details.hidden);
    }
  });
  table.addEventListener("change", (event) => {
    if (event.target.type !== "checkbox") return;
    tick(+event.target.closest("tbody").dataset.row, event.target.checked);
    legend();
    redraw();
  });
  find("controls").addEventListener("input", filter);
  find("controls").addEventListener("submit", (event) => event.preventDefault());
  find("metric")?.addEventListener("change", (event) => choose(+event.target.value));
  for (const id of ["course", "against", "log"]) find(id).addEventListener("change", courses);
  find("relative")?.addEventListener("change", noise);
  find("theme").addEventListener("click", () => {
    const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    root.dataset.theme = (root.dataset.theme || dark) === "dark" ? "light" : "dark";
  });

  data.metrics.forEach(({ name }, i) => {
    find("course").add(new Option(name === "train/loss" ? "train/loss (of each choice's own kind)" : name, i));
  });
  const FEW = 5; // lines that can still be told apart
  const best = data.rows.map((_, row) => row).filter((row) => row !== data.baseline).slice(0, FEW);
  for (const row of [...(data.baseline === null ? [] : [data.baseline]), ...best]) tick(row, true);
  legend();
  if (find("metric")) choose(0);
  else redraw();
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; redraw(); } });
})();
