// Charts of a monitor over event time: error by version with the alerts, predictions a slot, each channel against its threshold.
import { Chart, axes, card, colour, lineColour, number, utc } from "./plot.js";

const root = document.querySelector("[data-windows]");
if (root) start(root);

async function start(root) {
  let found = null;
  const charts = new Map();
  async function load() {
    const answer = await fetch(root.dataset.windows);
    const waiting = root.querySelector("[data-waiting]");
    if (!answer.ok) {
      if (waiting) waiting.textContent = "The monitor does not answer; the charts come when it does.";
      return;
    }
    found = await answer.json();
    if (!found.times.length) {
      if (waiting) waiting.textContent = "No slot is closed yet: charts appear with the first predictions.";
      return;
    }
    waiting?.remove();
    show("Error by version", "error", () => lines(found, found.errors, { marks: true }), 240, true);
    show("Predictions per slot", "predictions", () => lines(found, found.predictions, { bars: true }), 140, true);
    for (const name of ranked(found)) {
      show(`Statistic: ${name}`, `channel ${name}`, () => lines(found, { statistic: found.channels[name] ?? [], threshold: found.thresholds[name] ?? [] }, { threshold: true, marks: true }), 150);
    }
  }
  function show(title, key, make, height, across = false) {
    if (charts.has(key)) return charts.get(key).draw();
    const { element, box } = card(root, title);
    element.dataset.chart = key;
    element.classList.toggle("across", across);
    charts.set(key, new Chart(box, make, height));
    element.dataset.drawn = "yes";
  }
  root.addEventListener("refresh", load);
  setInterval(load, 5000);
  await load();
}

/** Channels that came nearest to their thresholds first. */
function ranked(found) {
  const nearest = (name) => Math.max(...found.channels[name].map((value, at) => (value === null ? 0 : value / (found.thresholds[name][at] || 1))));
  return Object.keys(found.channels).sort((a, b) => nearest(b) - nearest(a));
}

function lines(found, named, { bars = false, threshold = false, marks = false } = {}) {
  const names = Object.keys(named);
  if (!names.length) return null;
  return {
    data: [found.times, ...names.map((name) => named[name])],
    options: {
      scales: { x: { time: true }, y: { range: (_, low, high) => [Math.min(low ?? 0, 0), (high ?? 1) * 1.08 || 1] } },
      axes: axes({ time: true }),
      cursor: { sync: { key: "drift" } },
      tzDate: utc,
      series: [
        { label: "slot (UTC)", value: "{YYYY}-{MM}-{DD} {HH}:{mm}" },
        ...names.map((name, index) => ({
          label: name,
          stroke: threshold && index === 1 ? colour("--bad") : lineColour(index),
          dash: threshold && index === 1 ? [5, 4] : undefined,
          width: 1.5,
          fill: bars ? lineColour(index) : undefined,
          paths: bars ? uPlot.paths.bars({ size: [0.9, 40] }) : undefined,
          points: { show: !bars && !threshold && found.times.length < 80 },
          spanGaps: false,
          value: (_, value) => number(value),
        })),
      ],
      hooks: marks ? { draw: [(plot) => drawMarks(plot, found.alerts)] } : {},
    },
  };
}

function drawMarks(plot, alerts) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.setLineDash([]);
  ctx.font = `${11 * devicePixelRatio}px system-ui`;
  let edge = -Infinity;
  for (const alert of [...alerts].sort((a, b) => a.time - b.time)) {
    const x = plot.valToPos(alert.time, "x", true);
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    if (alert.onset && alert.onset < alert.time) {
      const from = Math.max(plot.valToPos(alert.onset, "x", true), bbox.left);
      ctx.globalAlpha = 0.1;
      ctx.fillStyle = colour("--bad");
      ctx.fillRect(from, bbox.top, x - from, bbox.height);
      ctx.globalAlpha = 1;
    }
    ctx.strokeStyle = colour("--bad");
    ctx.lineWidth = 1.5 * devicePixelRatio;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    const width = ctx.measureText(alert.kind).width;
    const gap = 4 * devicePixelRatio;
    const left = x + gap + width > bbox.left + bbox.width ? x - gap - width : x + gap;
    if (left > edge) {
      ctx.fillStyle = colour("--bad");
      ctx.fillText(alert.kind, left, bbox.top + 12 * devicePixelRatio);
      edge = left + width + 2 * gap;
    }
  }
  ctx.restore();
}
