// Metric charts of one run or of several: a card a metric, those of one prefix ("train/") together.
import { Chart, axes, card, lineColour, number, utc } from "./plot.js";

const root = document.querySelector("[data-charts]");
if (root) start(root);

function start(root) {
  const runs = JSON.parse(root.dataset.runs);
  const keys = JSON.parse(root.dataset.keys);
  const bar = document.querySelector("[data-chart-bar]");
  const setting = {
    x: bar.querySelector("[data-chart-x]"),
    log: bar.querySelector("[data-chart-log]"),
    smooth: bar.querySelector("[data-chart-smooth]"),
    filter: bar.querySelector("[data-chart-filter]"),
  };
  const cards = [];
  for (const key of [...keys].sort((a, b) => prefix(a).localeCompare(prefix(b)) || a.localeCompare(b))) {
    cards.push(metric(root, key, runs, setting));
  }
  // Charts load when they come into view: a run may have hundreds.
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) { seen.unobserve(entry.target); cards.find((each) => each.element === entry.target).load(); }
  }, { rootMargin: "300px" });
  for (const each of cards) seen.observe(each.element);
  for (const name of ["x", "log", "smooth"]) setting[name].addEventListener("input", () => cards.forEach((each) => each.draw()));
  setting.filter.addEventListener("input", () => {
    const wanted = setting.filter.value.toLowerCase();
    for (const each of cards) each.element.hidden = !each.key.toLowerCase().includes(wanted);
  });
  root.addEventListener("refresh", () => cards.forEach((each) => each.reload()));
}

function prefix(key) {
  return key.includes("/") ? key.slice(0, key.indexOf("/")) : "";
}

function metric(root, key, runs, setting) {
  const { element, box } = card(root, key);
  let lines = null;
  let chart = null;
  async function load() {
    box.style.minHeight = "238px";
    lines = await Promise.all(runs.map(([id]) => series(id, key)));
    if (chart) chart.draw();
    else chart = new Chart(box, () => drawing(lines, runs, setting));
    element.dataset.drawn = "yes";
  }
  return { key, element, load, draw: () => chart?.draw(), reload: () => { if (lines) load(); } };
}

/** Columns [step, seconds, value] of a metric: see columns_response in views/runs.py for the form. */
async function series(id, key) {
  const answer = await fetch(`/runs/${encodeURIComponent(id)}/series?key=${encodeURIComponent(key)}`);
  if (!answer.ok) return [[], [], []];
  const bytes = await answer.arrayBuffer();
  const [columns, rows] = new Uint32Array(bytes, 0, 2);
  return Array.from({ length: columns }, (_, index) => new Float64Array(bytes, 8 + index * rows * 8, rows));
}

function drawing(lines, runs, setting) {
  const kind = setting.x.value;
  const log = setting.log.checked;
  const weight = Number(setting.smooth.value);
  const tables = lines.map(([steps, seconds, values]) => {
    const x = Array.from(kind === "step" ? steps : kind === "time" ? seconds : Array.from(seconds, (each) => each - seconds[0]));
    const places = x.map((_, index) => index).sort((a, b) => x[a] - x[b]);
    const y = smooth(places.map((at) => values[at]), weight).map((each) => (Number.isFinite(each) && (!log || each > 0) ? each : null));
    return [places.map((at) => x[at]), y];
  });
  if (!tables.some(([x]) => x.length)) return null;
  const data = tables.length === 1 ? tables[0] : uPlot.join(tables);
  return {
    data,
    options: {
      scales: { x: { time: kind === "time" }, y: log ? { distr: 3 } : {} },
      axes: axes({ time: kind === "time", log }),
      tzDate: utc,
      legend: { live: true },
      cursor: { sync: { key: "metrics" }, points: { size: 6 } },
      series: [
        { label: { step: "step", time: "time", relative: "s" }[kind], ...(kind === "time" ? {} : { value: (_, value) => number(value) }) },
        ...runs.map(([, name], index) => ({ label: runs.length > 1 ? name : "value", stroke: lineColour(index), width: 1.6, spanGaps: true, points: { show: tables[index][0].length < 60 }, value: (_, value) => number(value) })),
      ],
    },
  };
}

/** Exponential moving average without the bias of its start; weight 0 changes nothing. */
function smooth(values, weight) {
  if (!weight) return values;
  let last = 0;
  let count = 0;
  return values.map((value) => {
    if (!Number.isFinite(value)) return value;
    last = last * weight + (1 - weight) * value;
    count += 1;
    return last / (1 - weight ** count);
  });
}
