// Metric charts of runs: one card a metric, those of one prefix ("train/") together. data-charts says which runs, in the
// form that addresses have. The choices of the bar stand in the address.
import { card, number } from "./plot.js";
import { Lines, smooth } from "./lines.js";
import { series } from "./series.js";

// All roots of a page have one bar and one zoom.
const view = { zoom: null, axis: "", redraws: [] };
for (const root of document.querySelectorAll("[data-charts]")) start(root);

function start(root) {
  const bar = document.querySelector("[data-chart-bar]");
  const fields = Object.fromEntries([...bar.querySelectorAll("[name]")].map((each) => [each.name, each]));
  const state = { runs: new Map(), cards: new Map(), groups: new Map() };
  const mine = (key) => (!root.dataset.only || key.startsWith(root.dataset.only)) && (!root.dataset.without || !key.startsWith(root.dataset.without));
  restore(fields);

  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const each = state.cards.get(entry.target.dataset.key);
      each.visible = entry.isIntersecting;
      if (each.visible) each.show();
    }
  }, { rootMargin: "300px" });

  async function list() {
    const answer = await fetch(`/runs/charted?${root.dataset.charts}`);
    if (!answer.ok) return;
    const found = await answer.json();
    found.runs.forEach(([id, name], index) => { if (!state.runs.has(id)) state.runs.set(id, { name, colour: index }); });
    const count = document.querySelector("#charted");
    if (count) count.textContent = `${number(found.runs.length)} run${found.runs.length === 1 ? "" : "s"}, ${number(found.keys.length)} metric${found.keys.length === 1 ? "" : "s"}`;
    for (const key of found.keys) {
      if (![...fields.x.options].some((each) => each.value === `metric.${key}`)) fields.x.append(new Option(key, `metric.${key}`));
      if (state.cards.has(key) || !mine(key)) continue;
      state.cards.set(key, metric(groupOf(root, state.groups, key), key, { root, state, fields }));
      seen.observe(state.cards.get(key).element);
    }
    root.dataset.keys = found.keys.length;
    restore({ x: fields.x });
    narrow();
  }

  view.redraws.push(redraw);
  function redraw() {
    for (const each of state.cards.values()) { each.stale = true; if (each.visible) each.show(); }
    document.querySelector("[data-chart-reset]").disabled = !view.zoom;
  }
  function narrow() {
    const wanted = pattern(fields.metrics);
    for (const [key, each] of state.cards) each.element.hidden = !wanted(key);
    for (const group of state.groups.values()) group.hidden = ![...group.querySelectorAll(".chart")].some((each) => !each.hidden);
  }
  function change(event) {
    save(fields);
    if (event.target === fields.metrics) return narrow();
    if (event.target === fields.x || event.target === fields.points) {
      if (event.target === fields.x) view.zoom = null;
      for (const each of state.cards.values()) each.forget();
    }
    redraw();
  }
  bar.addEventListener("input", change);
  bar.querySelector("[data-chart-reset]").addEventListener("click", () => { view.zoom = null; redraw(); });
  root.addEventListener("keydown", (event) => {
    const shown = [...state.cards.values()].find((each) => each.element === event.target)?.span();
    if (!shown || event.ctrlKey || event.metaKey) return;
    const [from, to] = shown;
    const step = (to - from) / 4;
    const zooms = { "+": [from + step, to - step], "-": [from - step, to + step], ArrowLeft: [from - step, to - step], ArrowRight: [from + step, to + step], 0: null };
    if (!(event.key in zooms)) return;
    event.preventDefault();
    view.zoom = zooms[event.key];
    view.axis = axisOf(event.target.dataset.key, fields);
    for (const each of view.redraws) each();
  });
  root.addEventListener("refresh", async (event) => {
    const streams = event.detail?.streams ?? [null];
    const ids = streams.map((each) => each?.match(/\/runs\/([^/]+)$/)?.[1]).filter(Boolean);
    if (ids.some((id) => !state.runs.has(id)) || state.runs.size <= 50) await list();
    const touched = streams.includes(null) ? null : ids.filter((id) => state.runs.has(id));
    if (touched && !touched.length) return;
    for (const each of state.cards.values()) if (each.visible) each.follow(touched); else each.forget();
  });
  list();
}

/** What a chart's x is: the machine has no steps of training, its charts go by time. */
function axisOf(key, fields) {
  return key.startsWith("system/") && fields.x.value === "step" ? "relative" : fields.x.value;
}

/** The test of a regular expression, or of a plain text when it is none. */
function pattern(input) {
  try {
    const found = new RegExp(input.value, "i");
    input.setCustomValidity("");
    return (key) => found.test(key);
  } catch {
    return (key) => key.toLowerCase().includes(input.value.toLowerCase());
  }
}

function restore(fields) {
  const query = new URLSearchParams(location.search);
  for (const [name, each] of Object.entries(fields)) {
    if (!query.has(name)) continue;
    if (each.type === "checkbox") each.checked = query.get(name) === "on";
    else if (each.tagName !== "SELECT" || [...each.options].some((option) => option.value === query.get(name))) each.value = query.get(name);
  }
}
function save(fields) {
  const query = new URLSearchParams(location.search);
  for (const [name, each] of Object.entries(fields)) {
    const value = each.type === "checkbox" ? (each.checked ? "on" : "") : each.value;
    if (value && !(name === "smooth" && value === "0") && !(name === "x" && value === "step")) query.set(name, value);
    else query.delete(name);
  }
  history.replaceState(null, "", `${location.pathname}?${query.toString().replaceAll("%2C", ",")}${location.hash}`);
}

function groupOf(root, groups, key) {
  const prefix = key.includes("/") ? key.slice(0, key.indexOf("/")) : "";
  if (groups.has(prefix)) return groups.get(prefix).querySelector(".charts");
  const group = document.createElement("details");
  group.className = "chart-group";
  group.open = true;
  const title = document.createElement("summary");
  title.textContent = prefix ? `${prefix}/` : "metrics";
  const charts = document.createElement("div");
  charts.className = "charts";
  group.append(title, charts);
  group.dataset.prefix = prefix;
  const after = [...groups.values()].find((each) => each.dataset.prefix > prefix);
  root.insertBefore(group, after ?? null);
  groups.set(prefix, group);
  return charts;
}

function metric(parent, key, { root, state, fields }) {
  const { element, box } = card(parent, key);
  element.dataset.key = key;
  element.tabIndex = 0;
  element.setAttribute("aria-label", `${key}: plus and minus zoom, arrows move, 0 shows everything`);
  box.style.minHeight = "210px";
  const legend = document.createElement("p");
  legend.className = "chart-legend";
  element.append(legend);
  let held = null; // run id -> [steps, seconds, values, other metric's values]
  let loading = null;
  let chart = null;

  const self = {
    element,
    visible: false,
    stale: false,
    forget: () => { held = null; },
    span: () => chart?.chart.plot && [chart.chart.plot.scales.x.min, chart.chart.plot.scales.x.max],
    async show() {
      if (!held) {
        loading ??= fetchSeries(key, root.dataset.charts, fields);
        const found = await loading;
        loading = null;
        held = found;
        self.stale = true;
      }
      if (chart && !self.stale) return;
      self.stale = false;
      if (chart) chart.draw();
      else chart = new Lines(box, legend, { look, zoomed, drawn });
      element.dataset.drawn = "yes";
      legend.replaceChildren(...chart.summary());
    },
    async follow(ids) {
      if (!held) return self.show();
      const found = await fetchSeries(key, ids ? `run=${ids.join(",")}` : root.dataset.charts, fields);
      for (const [id, columns] of found) held.set(id, columns);
      self.stale = true;
      return self.show();
    },
  };
  function look() {
    const weight = Number(fields.smooth.value);
    const axis = axisOf(key, fields);
    const logX = fields.logx.checked && axis !== "time";
    const logY = fields.logy.checked;
    const lines = [...held].map(([id, columns]) => {
      const run = state.runs.get(id) ?? { name: id, colour: 0 };
      const [x, values] = ordered(columns, axis, logX);
      const raw = logY ? values.map((each) => (each > 0 ? each : NaN)) : values;
      const y = smooth(raw, weight);
      return { name: run.name, colour: run.colour, x, y, raw: weight && held.size <= 10 ? raw : null };
    });
    const zoom = view.axis !== axis || (logX && view.zoom?.[0] <= 0) ? null : view.zoom;
    return { lines, time: axis === "time", logX, logY, clip: fields.clip.checked, zoom };
  }
  function zoomed(next) {
    view.zoom = next;
    view.axis = axisOf(key, fields);
    for (const redraw of view.redraws) redraw();
  }
  function drawn({ points, lines, ms }) {
    Object.assign(element.dataset, { points, lines, ms: ms.toFixed(1) });
  }
  return self;
}

/** Columns by run: see series.js. */
function fetchSeries(key, runs, fields) {
  const query = new URLSearchParams({ key });
  const points = fields.points.value;
  if (points) query.set(points === "lttb" ? "downsample" : "points", points);
  if (fields.x.value.startsWith("metric.")) query.set("x", fields.x.value.slice("metric.".length));
  return series(runs, query);
}

/** x, ascending, and the values there; points without an x are left out. */
function ordered([steps, seconds, values, others], kind, log) {
  const x = kind === "step" ? steps : kind === "time" ? seconds : kind === "relative" ? seconds.map((each) => each - seconds[0]) : others;
  if (!x) return [steps, values];
  let ascending = true;
  for (let index = 0; index < x.length && ascending; index += 1) ascending = Number.isFinite(x[index]) && (!log || x[index] > 0) && (!index || x[index - 1] <= x[index]);
  if (ascending) return [x, values];
  const places = Array.from(x.keys()).filter((at) => Number.isFinite(x[at]) && (!log || x[at] > 0)).sort((one, other) => x[one] - x[other]);
  return [Float64Array.from(places, (at) => x[at]), Float64Array.from(places, (at) => values[at])];
}
