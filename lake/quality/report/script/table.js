// A table that sorts by its columns and shows a part of many rows.

const PART_ROWS = 50;

/* `columns`: {title, value(row), cell(row)?, kind?, about?}: `value` sorts, `cell` gives text or an
   element (the value by default), `kind` is "number", "time" or "text".
   `expand(row)` gives an element that is shown under a row, `nameOf(row)` what its button is called.
   `stack`: where there is no room for columns, a row's cells are one under another. */
function table({ name, columns, rows, expand, nameOf, first = null, stack = false }) {
  const state = { rows, shown: PART_ROWS, by: first?.by ?? null, sign: first?.sign ?? 1 };
  const body = element("tbody", { role: "rowgroup" });
  const heads = columns.map((column, place) => {
    const button = element("button", { type: "button", onclick: () => sortBy(place) }, column.title);
    return element("th", { scope: "col", role: "columnheader", class: column.kind, title: column.about }, button);
  });
  // Roles are said, as a browser may take those of a table from what is laid out in another way.
  const root = element("div", { class: `table${stack ? " stack" : ""}`, role: "region", "aria-label": name, tabindex: "0" },
    element("table", { role: "table" }, element("caption", { class: "unseen" }, name),
      element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...heads)), body));
  const more = element("button", { type: "button", class: "quiet more", onclick: () => show(state.shown + 4 * PART_ROWS) });
  const all = element("div", { class: "table-all" }, root, more);

  function sortBy(place) {
    const numeric = columns[place].kind === "number";
    // Large numbers and late times are what people look for first.
    const start = numeric ? -1 : 1;
    state.sign = state.by === place ? -state.sign : start;
    state.by = place;
    draw();
  }

  function show(amount) {
    state.shown = amount;
    draw();
  }

  function line(row) {
    const cells = columns.map((column) => {
      const content = column.cell ? column.cell(row) : column.value(row);
      return element("td", { role: "cell", class: column.kind, "data-title": column.title }, isNothing(content) ? NOTHING : content);
    });
    const tr = element("tr", { role: "row", "data-id": row.finding_id }, ...cells);
    if (expand) makeExpandable(tr, cells[0], row);
    return tr;
  }

  function makeExpandable(tr, cell, row) {
    const button = element("button", { type: "button", class: "expand", "aria-expanded": "false", "aria-label": nameOf(row) }, ...cell.childNodes);
    cell.replaceChildren(button);
    button.addEventListener("click", () => {
      const opened = button.getAttribute("aria-expanded") === "true";
      button.setAttribute("aria-expanded", String(!opened));
      if (opened) tr.nextElementSibling.remove();
      else tr.after(element("tr", { class: "detail" }, element("td", { colspan: columns.length }, expand(row))));
    });
    tr.addEventListener("click", (event) => {
      // A click anywhere in the row, unless it marks text or is on something of its own.
      if (!event.target.closest("button, a") && getSelection().isCollapsed) button.click();
    });
  }

  function draw() {
    heads.forEach((head, place) => {
      if (place === state.by) head.setAttribute("aria-sort", state.sign > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
    const ordered = state.by === null ? state.rows : sorted(state.rows, columns[state.by].value, state.sign);
    body.replaceChildren(...ordered.slice(0, state.shown).map(line));
    const hidden = ordered.length - state.shown;
    more.hidden = hidden <= 0;
    more.textContent = `Show ${count(Math.min(hidden, 4 * PART_ROWS))} more of ${count(hidden)}`;
  }

  draw();
  return {
    root: all,
    use(newRows) {
      state.rows = newRows;
      show(PART_ROWS);
    },
    show,
    find: (id) => body.querySelector(`tr[data-id="${CSS.escape(id)}"] .expand`),
  };
}

const numberColumn = (title, value, cell) => ({ title, value, cell: cell ?? ((row) => number(value(row))), kind: "number" });
const textColumn = (title, value, cell) => ({ title, value, cell, kind: "text" });
// To the second: fractions of it do not matter for jobs and repairs.
const momentColumn = (title, value) => ({ ...timeColumn(title, value), cell: (row) => time(Math.floor(Date.parse(value(row)) / 1000) * 1000) });
const twoLines = (first, second, whole) => element("span", { class: "two-lines", title: whole }, first, element("small", {}, second));
const seriesColumn = () => textColumn("Market", seriesName, (row) => twoLines(marketName(row), row.dataset, seriesName(row)));
const timeColumn = (title, value) => ({ title, value: (row) => Date.parse(value(row)), cell: (row) => time(Date.parse(value(row))), kind: "time" });
