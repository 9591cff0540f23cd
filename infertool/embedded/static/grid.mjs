// A list of any length in a bounded table: only the rows in sight exist, and they are used again.
//
// The scroller has the focus; arrows choose a row, Enter opens it. At the top with nothing chosen, the list follows
// what comes; otherwise it stays where it is.

const OVERSCAN_ROWS = 4;

export class Grid {
  constructor(table, { view, rowHeight, make, fill, open, moved }) {
    this.table = table;
    this.scroller = table.parentElement;
    this.body = table.tBodies[1];
    this.spacers = [table.tBodies[0], table.tBodies[2]].map((body) => body.rows[0]);
    this.columns = table.tHead.rows[0].cells.length;
    this.view = view;
    this.rowHeight = rowHeight;
    this.make = make;
    this.fill = fill;
    this.open = open;
    this.moved = moved;
    this.chosen = null;
    this.scroller.addEventListener("scroll", () => this.moved());
    this.table.addEventListener("keydown", (event) => this.#onKey(event));
    this.body.addEventListener("click", (event) => this.#onClick(event));
    new ResizeObserver(() => this.moved()).observe(this.scroller);
  }

  // Before any list is drawn: reading these after a change would lay out the page once more.
  measure() {
    this.scrollTop = this.scroller.scrollTop;
    this.follows = this.scrollTop === 0 && this.chosen === null;
    this.inSight = Math.ceil(this.scroller.clientHeight / this.rowHeight);
  }

  draw() {
    const { inSight } = this;
    const added = this.view.takeAdded();
    const stay = this.follows ? 0 : this.scrollTop + added * this.rowHeight;
    const wanted = Math.max(0, Math.floor(stay / this.rowHeight) - OVERSCAN_ROWS);
    const first = Math.min(wanted, Math.max(0, this.view.length - inSight - OVERSCAN_ROWS));
    const rows = Math.min(this.view.length - first, inSight + 2 * OVERSCAN_ROWS);
    this.#resize(rows);
    this.spacers[0].style.height = `${first * this.rowHeight}px`;
    this.spacers[1].style.height = `${(this.view.length - first - rows) * this.rowHeight}px`;
    for (let index = 0; index < rows; index += 1) this.#drawRow(this.body.rows[index], first + index);
    say(this.table, "aria-rowcount", String(this.view.length + 1));
    const chosenRow = this.body.querySelector("[aria-selected=true]");
    if (chosenRow) say(this.table, "aria-activedescendant", chosenRow.id);
    else this.table.removeAttribute("aria-activedescendant");
    if (added && stay) this.scroller.scrollTop = stay;
  }

  // Back to the newest, and on with what comes.
  follow() {
    this.chosen = null;
    this.scroller.scrollTop = 0;
    this.moved();
  }

  #drawRow(row, index) {
    const record = this.view.newest(index);
    if (row.record !== record) {
      row.record = record;
      this.fill(row, record);
    }
    say(row, "aria-rowindex", String(index + 2));
    say(row, "aria-selected", String(record === this.chosen));
  }

  #resize(rows) {
    while (this.body.rows.length > rows) this.body.lastElementChild.remove();
    while (this.body.rows.length < rows) {
      const row = this.body.insertRow();
      row.id = `${this.table.id}-row-${this.body.rows.length}`;
      for (let column = 0; column < this.columns; column += 1) row.insertCell().dir = "auto";
      this.make(row);
    }
  }

  #onClick(event) {
    this.chosen = event.target.closest("tr").record;
    this.moved();
    this.open(this.chosen);
  }

  #onKey(event) {
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / this.rowHeight) - 2);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key === "Enter" && this.chosen) this.open(this.chosen);
    else if (event.key === "Escape" && this.chosen) this.follow();
    else if (event.key in steps && this.view.length) this.#choose(steps[event.key]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #choose(step) {
    this.moved();
    const current = this.#indexOfChosen();
    const next = current === -1 ? 0 : Math.min(this.view.length - 1, Math.max(0, current + step));
    this.chosen = this.view.newest(next);
    const top = next * this.rowHeight;
    const room = this.scroller.clientHeight - this.table.tHead.offsetHeight - this.rowHeight;
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    else if (top > this.scroller.scrollTop + room) this.scroller.scrollTop = top - room;
  }

  #indexOfChosen() {
    for (let index = 0; index < this.view.length; index += 1) {
      if (this.view.newest(index) === this.chosen) return index;
    }
    return -1;
  }
}

function say(place, attribute, value) {
  if (place.getAttribute(attribute) !== value) place.setAttribute(attribute, value);
}
