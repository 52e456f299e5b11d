// Runs side by side: what differs and what is best, parallel coordinates with brushes, and a scatter.
import { colour, number } from "./plot.js";

const $ = (selector) => document.querySelector(selector);
const table = $("#comparison");
const box = $("[data-differences]");
const query = new URLSearchParams(location.search);

// --- the table -----------------------------------------------------------------------------------------------------------
function onlyDifferences(on) {
  table.classList.toggle("only", on);
  query.delete("differences");
  if (on) query.set("differences", "on");
  keep();
}
function keep() {
  history.replaceState(null, "", `${location.pathname}?${query.toString().replaceAll("%2C", ",")}${location.hash}`);
}
box.checked = query.get("differences") === "on";
table.classList.toggle("only", box.checked);
box.addEventListener("change", () => onlyDifferences(box.checked));
table.addEventListener("click", (event) => {
  const button = event.target.closest("[data-better]");
  if (!button) return;
  const less = button.dataset.better === "more";
  button.dataset.better = less ? "less" : "more";
  button.textContent = less ? "↓" : "↑";
  button.title = `What counts as better: ${button.dataset.better}`;
  button.setAttribute("aria-label", button.title);
  const cells = [...button.closest("tr").cells].slice(2);
  const values = cells.map((cell) => Number(cell.textContent.replaceAll("\u202f", "") || NaN));
  const known = values.filter(Number.isFinite);
  const best = new Set(known).size > 1 ? (less ? Math.min : Math.max)(...known) : NaN;
  cells.forEach((cell, place) => cell.classList.toggle("best", values[place] === best));
});

// --- what is drawn -------------------------------------------------------------------------------------------------------
const { dimensions, runs } = JSON.parse($("#pictures").dataset.drawnRuns);
const HEIGHT = 300;
const EDGE = { top: 44, bottom: 26, side: 70 };

/** A dimension: numbers where all its values are, else texts in their order. */
function scaleOf(index) {
  const [kind, key] = dimensions[index];
  const found = runs.map(([, , values]) => values[index]).filter((each) => each !== null);
  const numeric = found.length > 0 && found.every((each) => each !== "" && Number.isFinite(Number(each)));
  if (numeric) {
    const numbers = found.map(Number);
    const least = numbers.reduce((one, other) => Math.min(one, other), Infinity);
    const most = numbers.reduce((one, other) => Math.max(one, other), -Infinity);
    const span = most - least || 1;
    return { index, kind, key, differs: most > least, at: (value) => (value === null ? null : (Number(value) - least) / span), ends: [number(least), number(most)], marks: null };
  }
  const texts = [...new Set(found)].sort();
  const last = Math.max(texts.length - 1, 1);
  return { index, kind, key, differs: texts.length > 1, at: (value) => (value === null ? null : texts.indexOf(value) / last), ends: null, marks: texts.map((text, place) => [text, place / last]) };
}
const scales = dimensions.map((_, index) => scaleOf(index));
const titleOf = (scale) => scale.key;
const named = (name) => scales.findIndex((each) => `${each.kind}.${each.key}` === name);

let shown = (query.get("axes") ?? "").split(",").map(named).filter((each) => each >= 0);
if (!shown.length) {
  const params = scales.filter((each) => each.kind === "param" && each.differs && (each.ends || each.marks.length <= 30)).slice(0, 6);
  const metrics = scales.filter((each) => each.kind === "metric" && each.differs).slice(0, 3);
  shown = [...params, ...metrics].map((each) => each.index);
}
const brushes = new Map(); // dimension -> [low, high] in 0..1
const metricOf = scales.find((each) => each.kind === "metric" && each.differs) ?? scales[0];
const choices = { hue: $("#hue"), x: $("#scatter-x"), y: $("#scatter-y") };
for (const [name, select] of Object.entries(choices)) {
  select.append(...scales.map((each) => new Option(`${each.key}`, String(each.index))));
  const first = name === "x" ? scales.find((each) => each.kind === "param" && each.differs) ?? scales[0] : metricOf;
  const wanted = named(query.get(name) ?? "");
  select.value = String(wanted >= 0 ? wanted : first?.index ?? "");
  select.addEventListener("change", () => {
    query.set(name, `${scales[select.value].kind}.${scales[select.value].key}`);
    keep();
    draw();
  });
}

/** From one colour of the page to another, by a value in 0..1; muted for none. */
function hues() {
  const rgb = (text) => { const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true }); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3); };
  const [from, to, none] = [rgb(colour("--c0")), rgb(colour("--c1")), colour("--c7")];
  return (value) => (value === null || !Number.isFinite(value) ? none : `rgb(${from.map((each, place) => Math.round(each + (to[place] - each) * value)).join(" ")})`);
}

// --- parallel coordinates ------------------------------------------------------------------------------------------------
const parallel = $("#parallel");
const canvas = parallel.querySelector("canvas");
const xOf = (place) => EDGE.side + (shown.length > 1 ? (place * (parallel.clientWidth - 2 * EDGE.side)) / (shown.length - 1) : 0);
const yOf = (value) => EDGE.top + (1 - value) * (HEIGHT - EDGE.top - EDGE.bottom);
const valueOf = (y) => Math.min(Math.max(1 - (y - EDGE.top) / (HEIGHT - EDGE.top - EDGE.bottom), 0), 1);

function isKept(values) {
  for (const [index, [low, high]] of brushes) {
    const at = scales[index].at(values[index]);
    if (at === null || at < low || at > high) return false;
  }
  return true;
}

function drawParallel() {
  const ratio = devicePixelRatio;
  const width = parallel.clientWidth;
  canvas.width = width * ratio;
  canvas.height = HEIGHT * ratio;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${HEIGHT}px`;
  const ctx = canvas.getContext("2d");
  ctx.scale(ratio, ratio);
  const hue = hues();
  const by = scales[choices.hue.value];
  const [kept, rest] = [[], []];
  for (const run of runs) (isKept(run[2]) ? kept : rest).push(run);
  for (const [list, alpha] of [[rest, 0.08], [kept, runs.length > 100 ? 0.35 : 0.8]]) {
    ctx.globalAlpha = alpha;
    for (const [, , values] of list) {
      ctx.strokeStyle = hue(by ? by.at(values[by.index]) : null);
      ctx.beginPath();
      let open = false;
      shown.forEach((index, place) => {
        const at = scales[index].at(values[index]);
        if (at === null) { open = false; return; }
        if (open) ctx.lineTo(xOf(place), yOf(at)); else ctx.moveTo(xOf(place), yOf(at));
        open = true;
      });
      ctx.stroke();
    }
  }
  ctx.globalAlpha = 1;
  ctx.font = "11px system-ui";
  ctx.textAlign = "center";
  shown.forEach((index, place) => {
    const x = xOf(place);
    ctx.strokeStyle = colour("--strong-line");
    ctx.beginPath();
    ctx.moveTo(x, yOf(1));
    ctx.lineTo(x, yOf(0));
    ctx.stroke();
    ctx.fillStyle = colour("--muted");
    const scale = scales[index];
    if (scale.ends) {
      ctx.fillText(scale.ends[0], x, HEIGHT - 8);
      ctx.fillText(scale.ends[1], x, EDGE.top - 8);
    } else {
      for (const [text, at] of scale.marks.slice(0, 30)) ctx.fillText(text.slice(0, 16), x, yOf(at) - 4);
    }
    const brush = brushes.get(index);
    if (brush) {
      ctx.fillStyle = colour("--accent");
      ctx.globalAlpha = 0.3;
      ctx.fillRect(x - 7, yOf(brush[1]), 14, Math.max(yOf(brush[0]) - yOf(brush[1]), 2));
      ctx.globalAlpha = 1;
    }
  });
  $("#kept").textContent = brushes.size ? `${number(kept.length)} of ${number(runs.length)} kept` : `${number(runs.length)} runs`;
  parallel.dataset.kept = kept.length;
}

function nearest(x) {
  let best = 0;
  shown.forEach((_, place) => { if (Math.abs(xOf(place) - x) < Math.abs(xOf(best) - x)) best = place; });
  return best;
}

canvas.addEventListener("pointerdown", (event) => {
  const place = nearest(event.offsetX);
  if (Math.abs(xOf(place) - event.offsetX) > 16 || !shown.length) return;
  const index = shown[place];
  const from = valueOf(event.offsetY);
  canvas.setPointerCapture(event.pointerId);
  const move = (moved) => {
    const to = valueOf(moved.offsetY);
    if (Math.abs(to - from) < 0.01) brushes.delete(index);
    else brushes.set(index, [Math.min(from, to), Math.max(from, to)]);
    draw();
  };
  const up = (moved) => {
    move(moved);
    canvas.removeEventListener("pointermove", move);
    canvas.removeEventListener("pointerup", up);
  };
  canvas.addEventListener("pointermove", move);
  canvas.addEventListener("pointerup", up);
});

function reorder(from, to) {
  const place = Math.min(Math.max(to, 0), shown.length - 1);
  const [moved] = shown.splice(from, 1);
  shown.splice(place, 0, moved);
  saveAxes();
  drawTitles();
  draw();
  return place;
}
function saveAxes() {
  query.set("axes", shown.map((index) => `${scales[index].kind}.${scales[index].key}`).join(","));
  keep();
}

function drawTitles() {
  for (const each of parallel.querySelectorAll("button")) each.remove();
  shown.forEach((index, place) => {
    const title = document.createElement("button");
    title.type = "button";
    title.textContent = titleOf(scales[index]);
    title.title = `${scales[index].kind} ${scales[index].key}`;
    title.dataset.axis = `${scales[index].kind}.${scales[index].key}`;
    title.style.left = `${xOf(place)}px`;
    title.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
        event.preventDefault();
        const at = reorder(shown.indexOf(index), shown.indexOf(index) + (event.key === "ArrowLeft" ? -1 : 1));
        parallel.querySelectorAll("button")[at].focus();
      } else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
        event.preventDefault(); // halves of the axis, then all of it
        const half = event.key === "ArrowUp" ? [0.5, 1] : [0, 0.5];
        const now = brushes.get(index);
        if (now && now[0] === half[0] && now[1] === half[1]) brushes.delete(index); else brushes.set(index, half);
        draw();
      }
    });
    title.addEventListener("pointerdown", (event) => {
      title.setPointerCapture(event.pointerId);
      const left = parallel.getBoundingClientRect().left;
      const move = (moved) => { title.style.left = `${moved.clientX - left}px`; };
      const up = (moved) => {
        title.removeEventListener("pointermove", move);
        reorder(shown.indexOf(index), nearest(moved.clientX - left));
      };
      title.addEventListener("pointermove", move);
      title.addEventListener("pointerup", up, { once: true });
    });
    parallel.append(title);
  });
}

$("#axes").append(...scales.filter((each) => each.differs).map((scale) => {
  const label = document.createElement("label");
  const tick = document.createElement("input");
  Object.assign(tick, { type: "checkbox", checked: shown.includes(scale.index) });
  tick.addEventListener("change", () => {
    if (tick.checked) shown.push(scale.index);
    else { shown = shown.filter((each) => each !== scale.index); brushes.delete(scale.index); }
    saveAxes();
    drawTitles();
    draw();
  });
  label.append(tick, ` ${scale.kind} ${scale.key}`);
  return label;
}));

// --- scatter -------------------------------------------------------------------------------------------------------------
const SVG = "http://www.w3.org/2000/svg";
function node(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent?.append(made);
  return made;
}
function drawScatter() {
  const scatter = $("#scatter");
  const [across, up] = [scales[choices.x.value], scales[choices.y.value]];
  if (!across || !up) return;
  const width = Math.max(scatter.clientWidth, 200);
  const svg = node("svg", { width, height: HEIGHT, role: "group", "aria-label": `${up.key} by ${across.key}` });
  const x = (value) => 80 + value * (width - 110);
  const y = (value) => HEIGHT - 34 - value * (HEIGHT - 60);
  node("path", { class: "edge", d: `M80 16V${HEIGHT - 34}H${width - 20}` }, svg);
  const texts = (scale, place) => (scale.ends ? [[scale.ends[0], 0], [scale.ends[1], 1]] : scale.marks.slice(0, 12)).forEach(([text, at]) => place(text, at));
  texts(across, (text, at) => { node("text", { x: x(at), y: HEIGHT - 16, "text-anchor": "middle" }, svg).textContent = text.slice(0, 18); });
  texts(up, (text, at) => { node("text", { x: 74, y: y(at) + 4, "text-anchor": "end" }, svg).textContent = text.slice(0, 12); });
  node("text", { x: (width + 60) / 2, y: HEIGHT - 2, "text-anchor": "middle", class: "node-name" }, svg).textContent = across.key;
  const hue = hues();
  const by = scales[choices.hue.value];
  for (const [id, name, values] of runs) {
    const [cx, cy] = [across.at(values[across.index]), up.at(values[up.index])];
    if (cx === null || cy === null || !isKept(values)) continue;
    const link = node("a", { href: `/runs/${id}`, "aria-label": name }, svg);
    const dot = node("circle", { cx: x(cx), cy: y(cy), r: 4.5 }, link);
    dot.style.fill = hue(by.at(values[by.index]));
    node("title", {}, link).textContent = `${name}: ${across.key} ${values[across.index]}, ${up.key} ${values[up.index]}`;
  }
  scatter.replaceChildren(svg);
}

let frame = 0;
function draw() {
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(() => { drawParallel(); drawScatter(); });
}
drawTitles();
draw();
new ResizeObserver(() => { drawTitles(); draw(); }).observe(parallel);
document.addEventListener("headrace:theme", draw);
