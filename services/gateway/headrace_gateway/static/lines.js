// A chart of any number of lines, each with points of its own: uPlot draws the axes and the cursor, this the lines.
import { Chart, axes, colour, lineColour, number, utc } from "./plot.js";

const NEAR = 6; // lines that the legend tells at the cursor
const FAINT = 40; // from so many lines on they are drawn thinner
const CLIPPED = 0.02;

/** Exponential moving average without the bias of its start; weight 0 changes nothing. */
export function smooth(values, weight) {
  if (!weight) return values;
  let last = 0;
  let bias = 1;
  return values.map((value) => {
    if (!Number.isFinite(value)) return value;
    last = last * weight + (1 - weight) * value;
    bias *= weight;
    return last / (1 - bias);
  });
}

/** Index of the first x that is not below a value, in ascending columns. */
export function place(xs, value) {
  let low = 0;
  let high = xs.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < value) low = middle + 1; else high = middle;
  }
  return low;
}

/**
 * @param box where it is drawn.
 * @param legend where the values at the cursor are told.
 * @param look () => { lines: [{ name, colour, x, y }], time, logX, logY, clip, zoom }; x ascends.
 * @param zoomed called with [from, to], or null for everything.
 */
export class Lines {
  constructor(box, legend, { look, zoomed, drawn }) {
    Object.assign(this, { legend, look, zoomed, drawn });
    this.chart = new Chart(box, () => this.make());
    box.style.minHeight = "210px"; // the legend stands apart
  }

  draw() {
    this.chart.draw();
  }

  make() {
    this.began = performance.now();
    const seen = this.seen = this.look();
    this.colours = new Map();
    this.halo = colour("--surface");
    this.marked = null;
    const spans = seen.lines.filter((line) => line.x.length);
    if (!spans.length) return null;
    const least = Math.min(...extremes(spans, (line) => line.x[0]));
    const most = Math.max(...extremes(spans, (line) => line.x[line.x.length - 1]));
    const x = seen.zoom ?? (least === most ? [least - 1, most + 1] : [least, most]);
    const y = heights(seen, x);
    this.spans = spans;
    return {
      data: [x, y],
      options: {
        scales: {
          x: { time: seen.time, distr: seen.logX ? 3 : 1, auto: false, range: () => x },
          y: { distr: seen.logY ? 3 : 1, auto: false, range: () => y },
        },
        axes: axes({ time: seen.time, log: seen.logY }),
        tzDate: utc,
        legend: { show: false },
        cursor: {
          sync: { key: "metrics", setSeries: false, scales: ["x", null] },
          points: { show: false },
          drag: { x: true, y: false, setScale: false },
          bind: { dblclick: () => () => { this.zoomed(null); return null; } },
        },
        series: [{}, { paths: () => null, points: { show: false } }],
        hooks: {
          draw: [(plot) => this.paint(plot)],
          setCursor: [(plot) => this.tell(plot)],
          setSelect: [(plot) => this.select(plot)],
        },
      },
    };
  }

  select(plot) {
    if (plot.select.width < 4) return;
    const from = plot.posToVal(plot.select.left, "x");
    const to = plot.posToVal(plot.select.left + plot.select.width, "x");
    plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    if (to > from) this.zoomed([from, to]);
  }

  tone(line) {
    const index = line.colour % 8; // asking the page for a colour takes longer than drawing a line
    if (!this.colours.has(index)) this.colours.set(index, lineColour(index));
    return this.colours.get(index);
  }

  paint(plot) {
    const { ctx, bbox } = plot;
    const [fromX, fromY] = [plot.scales.x, plot.scales.y];
    const toX = pixels(fromX.min, fromX.max, this.seen.logX, bbox.left, bbox.width);
    const toY = pixels(fromY.min, fromY.max, this.seen.logY, bbox.top + bbox.height, -bbox.height);
    const many = this.spans.length > FAINT;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.lineJoin = "round";
    ctx.lineWidth = (many ? 1 : 1.6) * devicePixelRatio;
    let points = 0;
    for (const line of this.spans) {
      ctx.strokeStyle = ctx.fillStyle = this.tone(line);
      if (line.raw) {
        ctx.globalAlpha = 0.22;
        trace(ctx, line.x, line.raw, { toX, toY, min: fromX.min, max: fromX.max });
      }
      ctx.globalAlpha = many ? 0.5 : 1;
      points += trace(ctx, line.x, line.y, { toX, toY, min: fromX.min, max: fromX.max });
    }
    ctx.restore();
    this.drawn({ points, lines: this.spans.length, ms: performance.now() - this.began });
  }

  /** Draws the line nearest to the cursor above the others: null for none. */
  mark(plot, line) {
    if (line === this.marked || this.spans.length < 2) return;
    this.marked = line;
    plot.over.querySelector("canvas")?.remove();
    if (!line) return;
    const { width, height } = plot.bbox;
    const canvas = document.createElement("canvas");
    canvas.className = "marked";
    Object.assign(canvas, { width, height });
    const ctx = canvas.getContext("2d");
    const { x, y } = plot.scales;
    const toX = pixels(x.min, x.max, this.seen.logX, 0, width);
    const toY = pixels(y.min, y.max, this.seen.logY, height, -height);
    ctx.lineJoin = "round";
    for (const [colour, thick] of [[this.halo, 5], [this.tone(line), 2.4]]) {
      ctx.strokeStyle = ctx.fillStyle = colour;
      ctx.lineWidth = thick * devicePixelRatio;
      trace(ctx, line.x, line.y, { toX, toY, min: x.min, max: x.max });
    }
    plot.over.append(canvas);
  }

  tell(plot) {
    const { left, top } = plot.cursor;
    if (left < 0 || !this.spans) {
      if (this.spans) this.mark(plot, null);
      this.legend.replaceChildren(...this.summary());
      return;
    }
    const at = plot.posToVal(left, "x");
    const near = [];
    for (const line of this.spans) {
      let index = place(line.x, at);
      if (index > 0 && (index === line.x.length || at - line.x[index - 1] < line.x[index] - at)) index -= 1;
      const value = line.y[index];
      if (!Number.isFinite(value)) continue;
      near.push([Math.abs(plot.valToPos(value, "y") - top), line, value]);
    }
    near.sort((one, other) => one[0] - other[0]);
    this.mark(plot, near[0]?.[1] ?? null);
    const when = document.createElement("span");
    when.textContent = this.seen.time ? `${new Date(at * 1000).toISOString().slice(0, 19).replace("T", " ")} UTC` : number(at);
    this.legend.replaceChildren(when, ...near.slice(0, NEAR).map(([, line, value]) => this.entry(line, number(value))));
  }

  /** What the legend tells while nothing is pointed at. */
  summary() {
    if (!this.spans || this.spans.length > NEAR) {
      const text = document.createElement("span");
      text.textContent = this.spans ? `${number(this.spans.length)} runs` : "";
      return [text];
    }
    return this.spans.map((line) => this.entry(line, ""));
  }

  entry(line, text) {
    const entry = document.createElement("span");
    const swatch = document.createElement("i");
    swatch.className = `swatch swatch-${line.colour % 8}`;
    const value = document.createElement("b");
    value.textContent = text;
    entry.append(swatch, `${line.name} `, value);
    return entry;
  }
}

function* extremes(lines, of) {
  let least = Infinity;
  let most = -Infinity;
  for (const line of lines) {
    least = Math.min(least, of(line));
    most = Math.max(most, of(line));
  }
  yield least;
  yield most;
}

/** The range of y that shows the lines between two x. */
function heights({ lines, logY, clip }, [from, to]) {
  let least = Infinity;
  let most = -Infinity;
  const values = clip ? [] : null;
  for (const { x, y } of lines) {
    for (let index = place(x, from); index < x.length && x[index] <= to; index += 1) {
      const value = y[index];
      if (!Number.isFinite(value) || (logY && value <= 0)) continue;
      if (value < least) least = value;
      if (value > most) most = value;
      values?.push(value);
    }
  }
  if (values?.length > 20) {
    const sorted = Float64Array.from(values).sort();
    least = sorted[Math.floor(sorted.length * CLIPPED)];
    most = sorted[Math.ceil(sorted.length * (1 - CLIPPED)) - 1];
  }
  if (least > most) return logY ? [0.1, 1] : [0, 1];
  if (logY) return least === most ? [least / 2, most * 2] : [least / 1.1, most * 1.1];
  const room = (most - least || Math.abs(most) || 1) * 0.06;
  return [least - room, most + room];
}

function pixels(min, max, log, start, length) {
  if (!log) return (value) => start + ((value - min) / (max - min)) * length;
  const low = Math.log10(min);
  const high = Math.log10(max);
  return (value) => start + ((Math.log10(value) - low) / (high - low)) * length;
}

/** Draws a line between two x; of the points in one column of pixels it draws first, least, greatest and last. */
function trace(ctx, xs, ys, { toX, toY, min, max }) {
  const begin = Math.max(place(xs, min) - 1, 0);
  const end = Math.min(place(xs, max) + 1, xs.length);
  let open = false;
  let column = NaN;
  let low = 0;
  let high = 0;
  let last = 0;
  let alone = null;
  let seen = 0;
  ctx.beginPath();
  const close = () => {
    if (low !== last || high !== last) { ctx.lineTo(column, low); ctx.lineTo(column, high); ctx.lineTo(column, last); }
  };
  for (let index = begin; index < end; index += 1) {
    const x = Math.round(toX(xs[index]) * 2) / 2;
    const y = toY(ys[index]);
    seen += 1;
    if (!Number.isFinite(y) || !Number.isFinite(x)) {
      if (open) close();
      if (alone) dot(ctx, ...alone);
      open = false;
      alone = null;
      continue;
    }
    if (!open) {
      ctx.moveTo(x, y);
      open = true;
      alone = [x, y];
      column = x;
      low = high = last = y;
    } else if (x === column) {
      if (y < low) low = y;
      if (y > high) high = y;
      last = y;
      alone = null;
    } else {
      close();
      ctx.lineTo(x, y);
      column = x;
      low = high = last = y;
      alone = null;
    }
  }
  if (open) close();
  ctx.stroke();
  if (alone) dot(ctx, ...alone);
  return seen;
}

function dot(ctx, x, y) {
  ctx.fillRect(x - 2 * devicePixelRatio, y - 2 * devicePixelRatio, 4 * devicePixelRatio, 4 * devicePixelRatio);
}
