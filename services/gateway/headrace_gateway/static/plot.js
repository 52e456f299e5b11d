// What all charts share: colours of the page, sizes, one chart that follows its box and the appearance.

/** The colour a CSS custom property stands for now. */
export function colour(name) {
  const probe = document.createElement("i");
  probe.hidden = true;
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

export function lineColour(index) {
  return colour(`--c${index % 8}`);
}

export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en").replaceAll(",", "\u202f");
  return String(Number(value.toPrecision(6)));
}

const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");
const two = (value) => String(value).padStart(2, "0");

/** Marks of a time axis, UTC: the day where marks are days apart, else the time of day. */
function times(_plot, marks, _axis, _space, step) {
  return marks.map((mark) => {
    const at = new Date(mark * 1000);
    if (step >= 86400) return `${at.getUTCDate()} ${MONTHS[at.getUTCMonth()]}`;
    const clock = `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
    return step >= 60 ? clock : `${clock}:${two(at.getUTCSeconds())}`;
  });
}

export const utc = (seconds) => uPlot.tzDate(new Date(seconds * 1000), "UTC");

/** Marks of a logarithmic axis: powers of ten, or all of them where there are too few of these. */
function decades(ticks) {
  const isPower = (tick) => Boolean(tick) && Math.abs(Math.log10(Math.abs(tick)) % 1) < 1e-9;
  const all = ticks.filter(isPower).length < 2;
  return ticks.map((tick) => (tick !== null && (all || isPower(tick)) ? number(tick) : ""));
}

export function axes({ time = false, log = false } = {}) {
  const plain = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
  const thin = (values) => values.map((value) => (value === null ? "" : number(value)));
  return [
    { ...plain, space: 70, size: 28, values: time ? times : (_, ticks) => thin(ticks) },
    { ...plain, size: 62, space: 34, values: (_, ticks) => (log ? decades(ticks) : thin(ticks)) },
  ];
}

/** Draws in a box now, and anew when its width or the appearance changes. `make` returns { options, data }. */
export class Chart {
  constructor(box, make, height = 210) {
    this.box = box;
    this.make = make;
    this.height = height;
    this.plot = null;
    box.style.minHeight = `${height + 28}px`;
    this.draw();
    new ResizeObserver(() => {
      const width = this.width();
      if (this.plot && width > 0 && Math.abs(width - this.plot.width) > 1) this.plot.setSize({ width, height: this.height });
    }).observe(box);
    document.addEventListener("headrace:theme", () => this.draw());
  }

  width() {
    return Math.floor(this.box.clientWidth);
  }

  draw() {
    const made = this.make();
    this.plot?.destroy();
    this.plot = null;
    if (!made) return;
    this.plot = new uPlot({ width: Math.max(this.width(), 200), height: this.height, ...made.options }, made.data, this.box);
  }
}

/** A card with a title and a box to draw in. */
export function card(parent, title) {
  const element = document.createElement("div");
  element.className = "chart";
  const head = document.createElement("h3");
  head.textContent = title;
  const box = document.createElement("div");
  box.className = "plot";
  element.append(head, box);
  parent.append(element);
  return { element, box };
}
