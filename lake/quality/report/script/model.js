// The document: how it is unpacked, and figures drawn from it. Pure, but for `unpacked`.

const SEVERITIES = ["critical", "error", "warning", "info"];
const PARTS = ["completeness", "accuracy", "consistency", "timeliness"];

// From the worst to the most harmless: the first that occurs gives a day its colour.
const REASONS = ["lost", "not_given", "not_fetched", "unknown", "venue_outage", "no_trade"];
const LOSSES = new Set(["lost", "not_given", "not_fetched", "unknown"]);
const MEANINGS = {
  lost: ["Lost", "The market traded, so there should be a row."],
  not_given: ["Not given", "The source no longer serves this time. Counts as a loss."],
  not_fetched: ["Not fetched", "This time was never requested from the source."],
  unknown: ["Unknown", "The source answered without these rows, and the reason is unknown. Counts as a loss."],
  venue_outage: ["Venue outage", "No market of the venue had data. Not a loss."],
  no_trade: ["No trade", "Provably nothing was traded. Not a loss."],
};

async function unpacked(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

const marketName = (market) => `${market.exchange} ${market.symbol}`;

// One table of one market: what a row of the heat map is.
const seriesKey = (row) => `${row.dataset}\n${row.exchange}\n${row.symbol}`;

const seriesName = (row) => `${marketName(row)} · ${row.dataset}`;

const distinct = (values) => [...new Set(values)].sort();

// The place of a score in the scale of colours; 0 is perfect.
function grade(value) {
  const bounds = [1, 0.999, 0.99, 0.95, 0.8];
  const place = bounds.findIndex((bound) => value >= bound);
  return place < 0 ? bounds.length : place;
}

const GRADES = ["1: perfect", "from 0.999", "from 0.99", "from 0.95", "from 0.8", "below"];

// A pause in what was checked that is longer than this is left out of the pictures.
const PAUSE_DAYS = 31;

// Days of the range on which anything was checked, as [first, end of it], without long pauses.
function stretchesOf(markets, days) {
  const stretches = [];
  missingByDay(markets, days).forEach((sum, index) => {
    if (sum === null) return;
    const last = stretches.at(-1);
    if (last && index - last[1] <= PAUSE_DAYS) last[1] = index + 1;
    else stretches.push([index, index + 1]);
  });
  return stretches.length ? stretches : [[0, days]];
}

// The days of stretches in one row; nulls stand for a pause, so many that a date has room.
function columnsOf(stretches) {
  return stretches.flatMap(([first, end], place) => {
    const own = Array.from({ length: end - first }, (_, index) => first + index);
    const pause = Math.max(2, 9 - own.length);
    return place === stretches.length - 1 ? own : [...own, ...Array(pause).fill(null)];
  });
}

// Missing slots by reason of each day, summed over markets; null for a day without any figure.
function missingByDay(markets, days) {
  const sums = Array.from({ length: days }, () => null);
  const at = (index) => (sums[index] ??= { rows: 0, markets: 0, missing: {} });
  for (const { days: figures } of markets) {
    figures.rows.forEach((rows, index) => {
      if (!rows && isNothing(figures.score[index])) return;
      at(index).rows += rows;
      at(index).markets += 1;
    });
    for (const [index, reason, slots] of figures.missing) {
      const { missing } = at(index);
      missing[reason] = (missing[reason] ?? 0) + slots;
    }
  }
  return sums;
}

const worstReason = (missing) => REASONS.find((reason) => missing[reason]);

const lossesOf = (missing) =>
  REASONS.reduce((sum, reason) => sum + (LOSSES.has(reason) ? missing[reason] ?? 0 : 0), 0);

function summed(markets) {
  const totals = Object.fromEntries(REASONS.map((reason) => [reason, 0]));
  for (const { missing } of markets) for (const reason of REASONS) totals[reason] += missing[reason];
  return totals;
}

// Nothing sorts last, whatever the direction.
function compared(one, other, sign) {
  if (isNothing(one) || isNothing(other)) return isNothing(one) - isNothing(other);
  if (typeof one === "string") return sign * one.localeCompare(other, "en", { numeric: true });
  return sign * (one - other);
}

// Rows in the order of a column's values; `sort` is stable, so equal rows keep their order.
const sorted = (rows, value, sign) =>
  rows.map((row) => [value(row), row]).sort((a, b) => compared(a[0], b[0], sign)).map(([, row]) => row);

// Weeks of one calendar year that a stretch of days touches: column 0 is the week of the first day.
function calendarOf(startMs, [first, end]) {
  const years = [];
  for (let index = first; index < end; index += 1) {
    const at = new Date(startMs + index * DAY_MS);
    const year = at.getUTCFullYear();
    const weekday = (at.getUTCDay() + 6) % 7; // Monday is 0
    if (years.at(-1)?.year !== year) years.push({ year, offset: weekday - index, cells: new Map(), weeks: 0 });
    const last = years.at(-1);
    const week = Math.floor((index + last.offset) / 7);
    last.cells.set(`${weekday},${week}`, index);
    last.weeks = week + 1;
  }
  return years;
}
