// Small lines in the table of runs: how a metric came to its last value. Only rows in sight are fetched, some at a time.
import { series } from "./series.js";

const POINTS = 24;
const [WIDTH, HEIGHT] = [64, 18];
const MOST = 100; // runs of one question
const KEPT = 5000;
const SETTLED_MS = 120; // what is only passed by is not fetched
const SVG = "http://www.w3.org/2000/svg";

/** The points of an SVG polyline; empty for fewer than two numbers. */
export function outline(values) {
  const finite = Array.from(values).filter(Number.isFinite);
  if (finite.length < 2) return "";
  const least = Math.min(...finite);
  const span = Math.max(...finite) - least || 1;
  return finite.map((value, place) => `${((place / (finite.length - 1)) * (WIDTH - 2) + 1).toFixed(1)},${(HEIGHT - 2 - ((value - least) / span) * (HEIGHT - 4)).toFixed(1)}`).join(" ");
}

export class Sparks {
  constructor() {
    this.known = new Map(); // key, run and value -> points
    this.asked = new Set();
  }

  /** The place of a line in a cell of a box; drawn now when it is known, else soon. */
  make(box, key, run, value) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("class", "spark");
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("aria-hidden", "true");
    Object.assign(svg.dataset, { key, run, name: JSON.stringify([key, run, value]) });
    svg.append(document.createElementNS(SVG, "polyline"));
    this.draw(svg);
    this.waiting ??= setTimeout(() => { this.waiting = undefined; this.fetch(box); }, SETTLED_MS);
    return svg;
  }

  draw(svg) {
    const points = this.known.get(svg.dataset.name);
    if (points) svg.firstChild.setAttribute("points", points);
  }

  /** Fetches what places inside a box lack, and draws it. */
  async fetch(box) {
    const lacking = [...box.querySelectorAll("svg.spark")].filter(({ dataset: { name } }) => !this.known.has(name) && !this.asked.has(name)).slice(0, MOST);
    if (!lacking.length) return;
    const names = lacking.map((each) => each.dataset.name);
    for (const name of names) this.asked.add(name);
    const query = new URLSearchParams({ key: lacking[0].dataset.key, points: POINTS, downsample: "lttb" });
    const found = await series(`run=${lacking.map((each) => each.dataset.run).join(",")}`, query).catch(() => null);
    for (const name of names) this.asked.delete(name);
    if (!found) return;
    for (const [place, name] of names.entries()) this.known.set(name, outline(found.get(lacking[place].dataset.run)?.[2] ?? []));
    while (this.known.size > KEPT) this.known.delete(this.known.keys().next().value);
    for (const each of box.querySelectorAll("svg.spark")) this.draw(each);
    this.fetch(box);
  }
}
