// A grid of coloured cells on a canvas: thousands of cells, one focus, the arrow keys move in it.

const LABEL_ROWS_PX = 12;
const SCROLL_PADDING_PX = 3; // as in parts.css: room for the ring of the focus

// Where cells begin, in whole pixels, so that no seam is blurred.
const edge = (place, size) => Math.round(place * size);

/* `shape`:
   name            what the grid shows, for those who cannot see it
   rows, columns   how many
   label(row)      text beside a row
   marks           [[column, text]] above the columns
   cell(row, column)    {fill, lines} or null: a colour's name, and the text of the cell
   caption(row, column) text in the cell where it is large enough (optional)
   choose(row, column)  called on click and Enter (optional)
   least, most     bounds of a cell's width in pixels
   height(width)   a cell's height */
function grid(shape) {
  const canvas = element("canvas", {
    tabindex: "0", role: "application", "aria-roledescription": "chart", "aria-label": `${shape.name}. Arrow keys move between cells${shape.choose ? ", Enter shows the findings of a cell" : ""}.`,
  });
  const ring = element("div", { class: "grid-ring", hidden: true });
  const spoken = element("div", { class: "unseen", "aria-live": "polite" });
  const marks = element("div", { class: "grid-marks", "aria-hidden": "true" });
  const field = element("div", { class: "grid-field" }, marks, canvas, ring);
  const scroll = element("div", { class: "grid-scroll" }, field);
  const labels = element("div", { class: "grid-labels", "aria-hidden": "true" });
  const root = element("div", { class: "grid" }, labels, scroll, spoken);
  const size = { width: 0, height: 0, gap: 0 };
  let place = null;

  function measure(width) {
    const free = Math.min(shape.most, Math.max(shape.least, width / shape.columns));
    size.width = free;
    size.height = shape.height(free);
    size.gap = free >= 6 ? 2 : free >= 4 ? 1 : 0;
  }

  function draw() {
    const scale = window.devicePixelRatio || 1;
    const [width, height] = [edge(shape.columns, size.width), shape.rows * size.height];
    canvas.width = width * scale;
    canvas.height = height * scale;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    field.style.width = `${width}px`;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const colours = new Map();
    const paint = (name) => colours.get(name) ?? colours.set(name, colour(name)).get(name);
    for (let row = 0; row < shape.rows; row += 1) {
      for (let column = 0; column < shape.columns; column += 1) drawCell(pen, paint, row, column);
    }
    drawLabels();
    moveRing();
  }

  function drawCell(pen, paint, row, column) {
    const cell = shape.cell(row, column);
    if (cell === null) return;
    const left = edge(column, size.width);
    const width = edge(column + 1, size.width) - left - size.gap;
    const height = size.height - (size.height > 10 ? 2 : 1);
    pen.fillStyle = paint(cell.fill);
    pen.beginPath();
    pen.roundRect(left, row * size.height, width, height, size.width >= 10 ? 3 : 0);
    pen.fill();
    if (!shape.caption || size.width < 24) return;
    pen.fillStyle = paint(`on-${cell.fill}`) || paint("ink");
    pen.font = "11px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.fillText(shape.caption(row, column), left + width / 2, row * size.height + height / 2);
  }

  function drawLabels() {
    const step = size.height >= LABEL_ROWS_PX ? 1 : 2;
    labels.replaceChildren(...Array.from({ length: shape.rows }, (_, row) => {
      const text = row % step ? "" : shape.label(row);
      const label = element("div", { title: text }, element("span", {}, text));
      label.style.height = `${size.height - 2}px`;
      label.classList.toggle("tall", size.height >= 2 * LABEL_ROWS_PX);
      return label;
    }));
    let free = -Infinity;
    marks.replaceChildren();
    for (const [column, text] of shape.marks) {
      const left = edge(column, size.width);
      const right = left + text.length * 7;
      if (left < free || (left && right > edge(shape.columns, size.width))) continue;
      const mark = element("span", {}, text);
      mark.style.left = `${left}px`;
      marks.append(mark);
      free = right + 10;
    }
  }

  function moveRing() {
    ring.hidden = place === null;
    if (place === null) return;
    const [row, column] = place;
    ring.style.left = `${edge(column, size.width) - 2}px`;
    ring.style.top = `${canvas.offsetTop + row * size.height - 2}px`;
    ring.style.width = `${Math.max(4, edge(column + 1, size.width) - edge(column, size.width) - size.gap + 4)}px`;
    ring.style.height = `${size.height + 2}px`;
  }

  function tell(cell, aloud) {
    const box = canvas.getBoundingClientRect();
    const [row, column] = place;
    tip.show(cell.lines, box.left + (column + 0.5) * size.width, box.top + row * size.height);
    if (aloud) spoken.textContent = cell.lines.join(". ");
  }

  function go(row, column, aloud) {
    const cell = shape.cell(row, column);
    if (cell === null) return false;
    place = [row, column];
    moveRing();
    if (aloud) ring.scrollIntoView({ block: "nearest", inline: "nearest", behavior: "instant" });
    tell(cell, aloud);
    return true;
  }

  function leave() {
    place = null;
    moveRing();
    tip.hide();
  }

  function under(event) {
    const box = canvas.getBoundingClientRect();
    const row = Math.floor((event.clientY - box.top) / size.height);
    const column = Math.floor((event.clientX - box.left) / size.width);
    return [Math.min(shape.rows - 1, Math.max(0, row)), Math.min(shape.columns - 1, Math.max(0, column))];
  }

  // The next cell that there is, in a direction: a calendar has none before its first day.
  function step(rows, columns) {
    let [row, column] = place ?? [0, -1];
    if (place === null) [rows, columns] = [0, 1];
    do {
      row += rows;
      column += columns;
      if (column >= shape.columns && place === null) [row, column] = [row + 1, 0];
      if (row < 0 || column < 0 || row >= shape.rows || column >= shape.columns) return;
    } while (!go(row, column, true));
  }

  const keys = {
    ArrowLeft: () => step(0, -1),
    ArrowRight: () => step(0, 1),
    ArrowUp: () => step(-1, 0),
    ArrowDown: () => step(1, 0),
    Home: () => place && go(place[0], 0, true),
    End: () => place && go(place[0], shape.columns - 1, true),
    Escape: leave,
    Enter: () => place && shape.choose?.(...place),
    " ": () => place && shape.choose?.(...place),
  };
  canvas.addEventListener("keydown", (event) => {
    if (!(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });
  canvas.addEventListener("focus", () => {
    if (canvas.matches(":focus-visible") && place === null) step(0, 1);
  });
  canvas.addEventListener("blur", leave);
  canvas.addEventListener("pointermove", (event) => go(...under(event), false) || leave());
  canvas.addEventListener("pointerleave", leave);
  canvas.addEventListener("click", (event) => {
    const at = under(event);
    if (shape.cell(...at) !== null) shape.choose?.(...at);
  });

  onWidth(scroll, (width) => {
    measure(width - 2 * SCROLL_PADDING_PX);
    draw();
  });
  drawings.add(draw);
  return { root, stop: () => drawings.delete(draw) };
}

// The first of each month, and the first day after each pause, as marks above days.
function monthMarks(startMs, columns, dayOf) {
  const marks = [];
  let last = null;
  for (let column = 0; column < columns; column += 1) {
    const index = dayOf(column);
    if (isNothing(index)) {
      last = null;
      continue;
    }
    const at = new Date(startMs + index * DAY_MS);
    const month = `${MONTHS[at.getUTCMonth()]} ${at.getUTCFullYear()}`;
    if (month !== last) marks.push([column, last?.slice(4) === month.slice(4) ? month.slice(0, 3) : month]);
    last = month;
  }
  return marks;
}
