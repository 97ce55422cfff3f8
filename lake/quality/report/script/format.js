// Values as text. Pure: nothing here knows the page.

const DAY_MS = 86400000;
const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");
const NOTHING = "–";

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const precise = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 9 });

const isNothing = (value) => value === null || value === undefined;

const count = (number) => whole.format(number);

const number = (value) => (isNothing(value) ? NOTHING : precise.format(value));

const plural = (amount, one, many = `${one}s`) => `${count(amount)} ${amount === 1 ? one : many}`;

// Rounded down, so that only a perfect score reads 1.
function score(value) {
  if (isNothing(value)) return NOTHING;
  return value >= 1 ? "1" : (Math.floor(value * 1e4 + 1e-7) / 1e4).toFixed(4);
}

const two = (value) => String(value).padStart(2, "0");

function day(ms) {
  const at = new Date(ms);
  return `${at.getUTCDate()} ${MONTHS[at.getUTCMonth()]} ${at.getUTCFullYear()}`;
}

const clock = (ms) => {
  const at = new Date(ms);
  return `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
};

// "2026-01-01 12:00:03.250": seconds and their parts only where there are any.
function time(ms) {
  const text = new Date(ms).toISOString();
  const seconds = text.slice(16, 23).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
  return `${text.slice(0, 10)} ${text.slice(11, 16)}${seconds === ":00" ? "" : seconds}`;
}

function duration(ms) {
  const units = [["d", DAY_MS], ["h", 3600000], ["min", 60000], ["s", 1000]];
  const parts = [];
  let rest = ms;
  for (const [name, size] of units) {
    if (rest >= size) parts.push(`${Math.floor(rest / size)} ${name}`);
    rest %= size;
  }
  return parts.slice(0, 2).join(" ") || "a moment";
}

function milliseconds(value) {
  if (isNothing(value)) return NOTHING;
  return Math.abs(value) < 1000 ? `${+value.toPrecision(3)} ms` : `${+(value / 1000).toPrecision(3)} s`;
}

// What stands under a time axis, by the distance (in seconds) of its marks.
function axisTime(seconds, step) {
  const ms = seconds * 1000;
  const at = new Date(ms);
  if (step >= 28 * 86400) return `${MONTHS[at.getUTCMonth()]} ${at.getUTCFullYear()}`;
  if (step >= 86400 || ms % DAY_MS === 0) return `${at.getUTCDate()} ${MONTHS[at.getUTCMonth()]}`;
  return step >= 60 ? clock(ms) : `${clock(ms)}:${two(at.getUTCSeconds())}`;
}

const words = (name) => name.replaceAll("_", " ");
