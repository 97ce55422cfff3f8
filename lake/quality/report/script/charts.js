// Charts over time, drawn by uPlot. What uPlot has no series for (candles, bands) is drawn in hooks.

// As in `lake.jobs.quality.charts`: an interval of more slots is shown by so many at each end.
const [LONG_SLOTS, MOST_INSIDE] = [180, 45];

const FONT = "11px system-ui, sans-serif";
const utcDate = (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC");

const axis = (more) => ({
  stroke: () => colour("muted"),
  grid: { stroke: () => colour("line"), width: 1 },
  ticks: { show: false },
  font: FONT,
  ...more,
});

const timeAxis = (more) => axis({
  grid: { show: false },
  size: 28,
  space: 70,
  values: (plot, marks, _axis, _space, step) => marks.map((mark) => axisTime(mark, step)),
  ...more,
});

const dayAxis = () => timeAxis({ incrs: [1, 2, 7, 14, 30, 61, 91, 182, 365].map((days) => days * 86400) });

const valueAxis = (values, size = 58) => axis({
  size, values: (plot, marks, _axis, _space, step) => marks.map((mark) => values(mark, step)),
});

// A mark of an axis with the digits that its neighbours differ in.
function marked(value, step) {
  let digits = 0;
  const isWhole = (scaled) => scaled > 0.5 && Math.abs(scaled - Math.round(scaled)) < 1e-6;
  while (digits < 14 && !isWhole(step * 10 ** digits)) digits += 1;
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

// A plot that keeps the width of its place and is made again when the theme changes.
// `build(width)` gives uPlot's options; a chart off the screen is not built before it is needed.
// The legend shows the slot `rest` while no pointer is over the plot.
function plot(name, build, data, rest) {
  const root = element("div", { class: "plot", role: "img", "aria-label": name });
  let made = null;
  let seen = false;
  function draw() {
    if (!root.clientWidth) return;
    const options = build(root.clientWidth);
    // Its room is kept before it is drawn: nothing moves under a reader, or a click.
    root.style.setProperty("--plot-height", `${options.height}px`);
    if (!seen) return;
    made?.destroy();
    made = new uPlot({ ...atRest(options, rest), tzDate: utcDate }, data, root);
  }
  const watch = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    watch.disconnect();
    seen = true;
    draw();
  }, { rootMargin: "400px" });
  watch.observe(root);
  onWidth(root, draw);
  root.drawNow = () => {
    seen = true;
    draw();
  };
  drawings.add(draw);
  return { root, stop: () => { watch.disconnect(); drawings.delete(draw); made?.destroy(); } };
}

function atRest(options, rest) {
  const still = (u) => {
    if (isNothing(u.cursor.idx)) u.setLegend({ idx: rest }, false);
  };
  return { ...options, hooks: { ...options.hooks, ready: [still], setCursor: [still] } };
}

const shade = (context, fill, left, top, width, height) => {
  context.save();
  context.fillStyle = fill;
  context.fillRect(left, top, width, height);
  context.restore();
};

const middle = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

// The time from one candle to the next: the most usual distance.
const spacing = (times) =>
  times.length < 2 ? 60 : middle(times.slice(1).map((at, place) => at - times[place]));

function extent(columns) {
  const values = columns.flat().filter((value) => !isNothing(value));
  if (!values.length) return [0, 1];
  // A spread of stacks of arguments is limited; windows are small, but nobody promises that.
  const low = values.reduce((a, b) => Math.min(a, b));
  const high = values.reduce((a, b) => Math.max(a, b));
  const room = (high - low) * 0.06 || Math.abs(high) * 0.001 || 1;
  return [low - room, high + room];
}

function drawCandles(u, chart, width) {
  const { ctx: pen, data: [times] } = u;
  const [up, down] = [colour("up"), colour("down")];
  const at = (value) => Math.round(u.valToPos(value, "price", true));
  pen.save();
  pen.beginPath();
  pen.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
  pen.clip();
  times.forEach((start, place) => {
    const [open, high, low, close] = [chart.open, chart.high, chart.low, chart.close].map((of) => of[place]);
    if (isNothing(open) || isNothing(close)) return;
    const left = u.valToPos(start, "x", true);
    const body = Math.max(1, (u.valToPos(start + width, "x", true) - left) * 0.7);
    const centre = Math.round(left + body / 1.4);
    pen.fillStyle = close >= open ? up : down;
    pen.fillRect(centre, at(high ?? open), Math.max(1, devicePixelRatio / 2), Math.max(1, at(low ?? close) - at(high ?? open)));
    pen.fillRect(centre - body / 2, at(Math.max(open, close)), body, Math.max(1.5, Math.abs(at(open) - at(close))));
    const volume = chart.volume[place];
    if (!volume) return;
    pen.globalAlpha = 0.28;
    const top = u.valToPos(volume, "volume", true);
    pen.fillRect(centre - body / 2, top, body, u.bbox.top + u.bbox.height - top);
    pen.globalAlpha = 1;
  });
  pen.restore();
}

// The middle of a long marked interval, of which there are no candles: what comes after it is moved
// to the left by `cut` seconds, a length that leaves the marks of the time axis at round times.
function foldOf(chart, width) {
  const [from, until] = [chart.mark_start + MOST_INSIDE * width, chart.mark_end - MOST_INSIDE * width];
  if (chart.mark_end - chart.mark_start <= LONG_SLOTS * width) return null;
  const unit = [[60, 3600], [300, 21600], [Infinity, 86400]].find(([slot]) => width <= slot)[1];
  const cut = Math.floor((until - from) / unit) * unit;
  if (!cut) return null;
  const seam = until - cut;
  return {
    from,
    seam,
    shown: (at) => (at < until ? Math.min(at, seam) : at - cut),
    real: (place) => (place < seam ? place : place + cut),
  };
}

const unfolded = { shown: (at) => at, real: (place) => place };

// Labels of a time axis; none within a fold, and the first after it says the day.
function foldedTimes(fold, marks, step) {
  const after = marks.find((mark) => mark >= fold.seam);
  return marks.map((mark) => {
    if (mark > fold.from && mark < fold.seam) return "";
    const text = axisTime(fold.real(mark), step);
    const date = axisTime(fold.real(mark), 86400);
    return mark === after && text !== date ? `${date} ${text}` : text;
  });
}

function drawFold(u, fold) {
  const middle = (u.valToPos(fold.from, "x", true) + u.valToPos(fold.seam, "x", true)) / 2;
  const half = 4 * devicePixelRatio;
  shade(u.ctx, colour("surface"), middle - half, u.bbox.top, 2 * half, u.bbox.height);
  for (const side of [-half, half]) shade(u.ctx, colour("strong-line"), middle + side, u.bbox.top, devicePixelRatio, u.bbox.height);
}

function drawMark(u, chart, width, { shown }) {
  const left = u.valToPos(Math.max(chart.mark_start, u.scales.x.min), "x", true);
  const right = u.valToPos(Math.min(shown(chart.mark_end), u.scales.x.max), "x", true);
  // The interval of one late bar is too narrow to be seen, so a bar's width is the least.
  const least = u.valToPos(chart.times[0] + width, "x", true) - u.valToPos(chart.times[0], "x", true);
  shade(u.ctx, colour("mark"), left, u.bbox.top, Math.max(least, right - left), u.bbox.height);
}

function candlePlot(chart) {
  const width = spacing(chart.times);
  const second = chart.second_opinion;
  const prices = [chart.open, chart.high, chart.low, chart.close];
  const [low, high] = extent(second ? [...prices, second.values] : prices);
  const most = chart.volume.reduce((a, b) => Math.max(a, b ?? 0), 0) || 1;
  const unseen = { paths: () => null, points: { show: false }, scale: "price", value: (u, value) => number(value) };
  const folded = foldOf(chart, width);
  const fold = folded ?? unfolded;
  const times = chart.times.map(fold.shown);
  const data = [times, ...prices, chart.volume, ...(second ? [second.values] : [])];
  const build = (room) => ({
    width: room,
    height: room < 420 ? 220 : 260,
    scales: {
      x: { range: [times[0] - width, times.at(-1) + 2 * width] },
      // A fifth is left below the candles for the volume.
      price: { range: [low - (high - low) * 0.2, high] },
      volume: { range: [0, most * 6] },
    },
    axes: [
      timeAxis(folded && { values: (u, marks, _axis, _space, step) => foldedTimes(folded, marks, step) }),
      { ...valueAxis(marked, 72), scale: "price" },
    ],
    series: [
      { label: "Time", value: (u, value) => (isNothing(value) ? NOTHING : time(fold.real(value) * 1000)) },
      ...["Open", "High", "Low", "Close"].map((label) => ({ label, ...unseen })),
      { label: "Volume", ...unseen, scale: "volume" },
      ...(second ? [{ label: second.name, scale: "price", stroke: colour("second"), width: 1.75, points: { show: false }, spanGaps: true, value: (u, value) => number(value) }] : []),
    ],
    cursor: { drag: { x: false, y: false }, y: false, points: { show: false } },
    legend: { markers: { show: false } },
    hooks: {
      drawClear: [(u) => {
        drawMark(u, chart, width, fold);
        if (folded) drawFold(u, folded);
      }],
      drawAxes: [(u) => drawCandles(u, chart, width)],
    },
  });
  const first = chart.times.findIndex((at) => at >= chart.mark_start);
  const name = `${chart.title}: candles from ${time(chart.times[0] * 1000)} to ${time(chart.times.at(-1) * 1000)}`;
  return plot(name, build, data, first < 0 ? chart.times.length - 1 : first);
}

// One colour inside the thresholds, another outside: a gradient with hard stops.
function apart(u, threshold, inside, outside) {
  const { min, max } = u.scales.y;
  if (isNothing(min) || !u.bbox?.height) return colour(inside); // called before there is a scale
  const gradient = u.ctx.createLinearGradient(0, u.valToPos(max, "y", true), 0, u.valToPos(min, "y", true));
  const place = (value) => Math.min(1, Math.max(0, (max - value) / (max - min)));
  const [agree, differ] = [colour(inside), colour(outside)];
  gradient.addColorStop(0, max > threshold ? differ : agree);
  gradient.addColorStop(place(threshold), max > threshold ? differ : agree);
  gradient.addColorStop(place(threshold), agree);
  gradient.addColorStop(place(-threshold), agree);
  gradient.addColorStop(place(-threshold), min < -threshold ? differ : agree);
  gradient.addColorStop(1, min < -threshold ? differ : agree);
  return gradient;
}

function deviationPlot(series) {
  const limit = series.threshold_bps;
  const [low, high] = extent([series.low, series.high, [-limit * 1.3, limit * 1.3]]);
  const said = (u, value) => (isNothing(value) ? NOTHING : `${number(+value.toFixed(1))} bp`);
  const edge = (label) => ({ label, stroke: (u) => apart(u, limit, "range", "bad"), width: 1, points: { show: false }, value: said });
  const build = (room) => ({
    width: room,
    height: 220,
    scales: { y: { range: [low, high] } },
    axes: [timeAxis(), valueAxis((value, step) => `${marked(value, step)} bp`, 72)],
    series: [
      { label: "Time", value: (u, value) => (isNothing(value) ? NOTHING : time(value * 1000)) },
      { label: `${series.first} above ${series.second}`, stroke: (u) => apart(u, limit, "second", "bad"), width: 1.5, points: { show: false }, value: said },
      edge("Lowest"),
      edge("Highest"),
    ],
    bands: [{ series: [3, 2], fill: (u) => apart(u, limit, "range", "range-bad") }],
    cursor: { drag: { x: false, y: false }, y: false },
    legend: { markers: { show: false } },
    hooks: {
      drawClear: [(u) => {
        const top = u.valToPos(limit, "y", true);
        shade(u.ctx, colour("band"), u.bbox.left, top, u.bbox.width, u.valToPos(-limit, "y", true) - top);
      }],
    },
  });
  const name = `${series.symbol}: ${series.first} against ${series.second}, in basis points`;
  return plot(name, build, [series.times, series.bps, series.low, series.high], series.times.length - 1);
}

const decades = (u, marks) => marks.map((mark) => (Math.abs(Math.log10(mark) % 1) < 1e-9 ? mark : null));

function latencyPlot(series, startMs) {
  const times = series.days.map((index) => (startMs + index * DAY_MS) / 1000);
  // A logarithm has no place for nothing, and a clock that is ahead gives less than that.
  const positive = (values) => values.map((value) => (value > 0 ? value : null));
  const lines = [["p50_ms", "Half within", "p50"], ["p90_ms", "9 of 10 within", "p90"], ["p99_ms", "99 of 100 within", "p99"]];
  const build = (room) => ({
    width: room,
    height: 260,
    scales: { x: { range: [times[0] - 43200, times.at(-1) + 43200] }, y: { distr: 3 } },
    axes: [dayAxis(), { ...valueAxis((value) => (value ? milliseconds(value) : ""), 62), grid: { ...axis().grid, filter: decades } }],
    series: [
      { label: "Day", value: (u, value) => (isNothing(value) ? NOTHING : day(value * 1000)) },
      ...lines.map(([, label, name]) => ({ label, stroke: colour(name), width: name === "p50" ? 2 : 1.25, points: { show: times.length < 40, size: 5, fill: colour(name) }, value: (u, value) => milliseconds(value) })),
    ],
    bands: [{ series: [3, 2], fill: colour("p99-fill") }, { series: [2, 1], fill: colour("p90-fill") }],
    cursor: { drag: { x: false, y: false }, y: false },
  });
  const name = `Latency of ${seriesName(series)} by day: median, 90 and 99 per cent`;
  return plot(name, build, [times, ...lines.map(([key]) => positive(series[key]))], times.length - 1);
}
