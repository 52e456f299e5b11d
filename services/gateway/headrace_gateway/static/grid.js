// A table of any number of rows that draws those in sight and fetches what it draws, a chunk at a time.

const CHUNK = 100;
const BEYOND = 8; // rows drawn above and below those in sight
const SETTLED_MS = 60; // what is only passed by is not fetched

/**
 * @param box the element that scrolls.
 * @param load (from, count) => rows; a row is anything with an `id`.
 * @param draw (row or null while it is fetched, index) => a <tr> of the fixed height.
 */
export class Grid {
  constructor(box, { height, load, draw }) {
    Object.assign(this, { box, height, load, draw, total: 0, rows: [], chunks: new Map(), drawn: new Map(), at: -1, age: 0, settling: 0 });
    this.table = document.createElement("table");
    this.table.className = "rows";
    this.head = this.table.createTHead();
    [this.above, this.body, this.below] = [0, 1, 2].map(() => this.table.createTBody());
    for (const each of [this.above, this.below]) each.setAttribute("aria-hidden", "true");
    box.replaceChildren(this.table);
    box.addEventListener("scroll", () => this.soon(), { passive: true });
    new ResizeObserver(() => this.soon()).observe(box);
  }

  /** Other rows altogether: forgets those there are and goes to the top. */
  reset(total) {
    this.total = total;
    this.rows = [];
    this.chunks.clear();
    this.age += 1;
    this.busy = this.stale = false;
    this.clear();
    this.at = -1;
    this.box.scrollTop = 0;
    this.paint();
  }

  /** The same rows, which may have changed: what is in sight is fetched anew and replaced when it comes. */
  refresh(total) {
    this.total = total;
    this.stale = true;
    for (const [index, row] of this.drawn) if (index >= total) { row.remove(); this.drawn.delete(index); }
    this.paint();
  }

  /** Draws all rows in sight again. */
  repaint() {
    this.clear();
    this.paint();
  }

  clear() {
    for (const row of this.drawn.values()) row.remove();
    this.drawn.clear();
  }

  soon() {
    this.frame ??= requestAnimationFrame(() => { this.frame = undefined; this.paint(); });
  }

  inSight() {
    const head = this.head.offsetHeight;
    const first = Math.max(Math.floor(this.box.scrollTop / this.height) - BEYOND, 0);
    const last = Math.min(Math.ceil((this.box.scrollTop + this.box.clientHeight - head) / this.height) + BEYOND, this.total);
    return [Math.min(first, last), last];
  }

  paint() {
    const [first, last] = this.inSight();
    for (const [index, row] of this.drawn) {
      if (index < first || index >= last) { row.remove(); this.drawn.delete(index); }
    }
    let next = this.body.firstElementChild;
    for (let index = first; index < last; index += 1) {
      let row = this.drawn.get(index);
      if (!row) {
        row = this.make(index);
        this.body.insertBefore(row, next);
      }
      next = row.nextElementSibling;
    }
    this.space(this.above, first);
    this.space(this.below, this.total - last);
    clearTimeout(this.settling);
    if (this.stale && !this.busy) {
      this.stale = false;
      this.chunks.clear();
    }
    if (!this.missing(first, last).length) return;
    this.settling = setTimeout(() => this.fetch(), this.rows.length ? SETTLED_MS : 0);
  }

  make(index) {
    const row = this.draw(this.rows[index] ?? null, index);
    row.setAttribute("aria-rowindex", String(index + 2));
    row.classList.toggle("at", index === this.at);
    this.drawn.set(index, row);
    return row;
  }

  space(body, rows) {
    if (!body.rows.length) body.insertRow().insertCell();
    body.rows[0].cells[0].style.height = `${rows * this.height}px`;
    body.hidden = rows <= 0;
  }

  missing(first, last) {
    const found = [];
    for (let chunk = Math.floor(first / CHUNK); chunk * CHUNK < last; chunk += 1) if (!this.chunks.has(chunk)) found.push(chunk);
    return found;
  }

  async fetch() {
    const age = this.age;
    this.busy = true;
    await Promise.all(this.missing(...this.inSight()).map(async (chunk) => {
      this.chunks.set(chunk, "asked");
      const rows = await this.load(chunk * CHUNK, CHUNK).catch(() => null);
      if (age !== this.age) return;
      if (!rows) return this.chunks.delete(chunk);
      rows.forEach((row, place) => {
        const index = chunk * CHUNK + place;
        const same = JSON.stringify(this.rows[index]) === JSON.stringify(row);
        this.rows[index] = row;
        const drawn = this.drawn.get(index);
        if (same || !drawn) return;
        const focused = drawn.contains(document.activeElement);
        const fresh = this.make(index);
        drawn.replaceWith(fresh);
        if (focused) fresh.querySelector("a")?.focus({ preventScroll: true });
      });
    }));
    if (age !== this.age) return;
    this.busy = false;
    this.box.dispatchEvent(new CustomEvent("headrace:rows"));
    if (this.stale || this.missing(...this.inSight()).length) this.soon();
  }

  /** Moves the marked row, scrolls to it and gives its link the focus. */
  move(step) {
    if (!this.total) return;
    const from = this.at;
    this.at = Math.min(Math.max(this.at + step, 0), this.total - 1);
    const top = this.at * this.height;
    const room = this.box.clientHeight - this.head.offsetHeight - this.height;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top > this.box.scrollTop + room) this.box.scrollTop = top - room;
    this.drawn.get(from)?.classList.remove("at");
    this.paint();
    const row = this.drawn.get(this.at);
    row?.classList.add("at");
    row?.querySelector("a")?.focus({ preventScroll: true });
  }
}
