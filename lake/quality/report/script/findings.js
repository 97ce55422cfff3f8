// The findings: a table with filters, and what lies behind each row.

const rank = (severity) => SEVERITIES.indexOf(severity);

// A check, and the class within it.
const checkName = (finding) => words(finding.check) + (finding.reason ? `: ${words(finding.reason)}` : "");

const severityMark = (severity) => element("span", { class: `severity ${severity}` }, severity);

// Whether a finding passes a filter; every part that is empty lets everything pass.
function passes(finding, filter, startMs) {
  if (filter.severity && finding.severity !== filter.severity) return false;
  if (filter.check && finding.check !== filter.check) return false;
  if (filter.status && finding.status !== filter.status) return false;
  if (filter.market && seriesKey(finding) !== filter.market) return false;
  if (filter.day !== null && Math.floor((Date.parse(finding.start) - startMs) / DAY_MS) !== filter.day) return false;
  const text = filter.text.trim().toLowerCase();
  return !text || text.split(/\s+/).every((word) => searched(finding).includes(word));
}

const searched = (finding) =>
  [finding.message, finding.exchange, finding.symbol, finding.dataset, finding.check, finding.against,
    finding.reason, finding.severity, finding.dimension, finding.finding_id, finding.job_id, finding.start]
    .join(" ").toLowerCase();

const asText = (value) => (typeof value === "number" ? number(value) : typeof value === "object" && value !== null ? JSON.stringify(value) : isNothing(value) ? NOTHING : String(value));

function contextTable(rows) {
  const names = [...new Set(rows.flatMap(Object.keys))];
  const numeric = (name) => rows.some((row) => typeof row[name] === "number");
  const cell = (row, name) => element("td", { class: numeric(name) ? "number" : "text" }, asText(row[name]));
  return element("div", { class: "table context", role: "region", "aria-label": "Neighbouring rows of the finding", tabindex: "0" },
    element("table", {},
      element("caption", { class: "unseen" }, "Neighbouring rows of the finding"),
      element("thead", {}, element("tr", {}, ...names.map((name) => element("th", { scope: "col", class: numeric(name) ? "number" : "text" }, words(name))))),
      element("tbody", {}, ...rows.map((row) => element("tr", {}, ...names.map((name) => cell(row, name)))))));
}

function findingDetail(finding) {
  const fact = (title, text, kind) => (isNothing(text) || text === "" ? null
    : element("div", {}, element("dt", {}, title), element("dd", { class: kind }, text)));
  const [start, end] = [Date.parse(finding.start), Date.parse(finding.end)];
  return element("div", { class: "finding" },
    element("dl", { class: "facts" },
      fact("Market", seriesName(finding)), fact("From", time(start)), fact("Until", time(end)), fact("Duration", duration(end - start)),
      fact("Measured", isNothing(finding.measured) ? null : number(finding.measured)),
      fact("Expected", isNothing(finding.expected) ? null : number(finding.expected)),
      fact("Reason", finding.reason && words(finding.reason)), fact("Reference", finding.against),
      fact("Dimension", finding.dimension), fact("Opened", time(Math.floor(Date.parse(finding.found_at) / 1000) * 1000)),
      fact("Status", finding.status), fact("Job", finding.job_id, "code"), fact("Finding", finding.finding_id, "code")),
    finding.context.length ? contextTable(finding.context) : element("p", { class: "note" }, "This finding has no stored neighbouring rows."));
}

function findingTable(findings) {
  return table({
    name: "Findings",
    columns: [
      { ...textColumn("Severity", (row) => rank(row.severity), (row) => severityMark(row.severity)), kind: "text tight" },
      timeColumn("From", (row) => row.start),
      seriesColumn(),
      textColumn("Check", checkName, (row) => (row.reason ? twoLines(words(row.check), words(row.reason)) : words(row.check))),
      { ...textColumn("Message", (row) => row.message), kind: "prose" },
      numberColumn("Rows", (row) => row.rows, (row) => count(row.rows)),
      numberColumn("Measured", (row) => row.measured),
      numberColumn("Expected", (row) => row.expected),
    ],
    stack: true,
    rows: findings,
    expand: findingDetail,
    nameOf: (row) => `${row.severity}, ${marketName(row)}: ${row.message}`,
    first: { by: 0, sign: 1 },
  });
}

// Fills the section; gives how others ask for findings: by market and day, or one by itself.
function findingSection(report, startMs) {
  const place = host("findings");
  const none = { severity: "", check: "", status: "", market: "", text: "", day: null };
  if (!report.findings.length) {
    place.append(empty("No findings: every check passed."));
    return { filterBy: () => place.scrollIntoView(), showFinding: () => {} };
  }
  let filter = { ...none };
  const made = findingTable(report.findings);
  const shown = element("p", { class: "shown", role: "status", tabindex: "-1" });
  const chip = element("button", { type: "button", class: "chip", hidden: true, onclick: () => set({ day: null }) });
  const reset = element("button", { type: "button", class: "quiet", onclick: () => set({ ...none }) }, "Clear filters");
  const markets = new Map(sorted(report.findings, seriesName, 1).map((finding) => [seriesKey(finding), seriesName(finding)]));
  const values = (name) => distinct(report.findings.map((finding) => finding[name]));
  const choices = {
    severity: choice("Severity", [["", "All"], ...SEVERITIES.filter((name) => values("severity").includes(name)).map((name) => [name, name])], (severity) => set({ severity })),
    check: choice("Check", [["", "All"], ...values("check").map((name) => [name, words(name)])], (check) => set({ check })),
    market: choice("Market", [["", "All"], ...markets], (market) => set({ market })),
    status: choice("Status", [["", "All"], ...values("status").map((name) => [name, name])], (status) => set({ status })),
  };
  const id = unused("text");
  const input = element("input", { id, type: "search", placeholder: "Words, in any order", autocomplete: "off", oninput: () => set({ text: input.value }) });

  function set(part) {
    filter = { ...filter, ...part };
    const kept = report.findings.filter((finding) => passes(finding, filter, startMs));
    for (const [name, { select }] of Object.entries(choices)) select.value = filter[name];
    if (input.value !== filter.text) input.value = filter.text;
    chip.hidden = filter.day === null;
    if (filter.day !== null) chip.textContent = `Only ${day(startMs + filter.day * DAY_MS)}  ×`;
    reset.hidden = Object.keys(none).every((name) => filter[name] === none[name]);
    made.use(kept);
    made.root.hidden = !kept.length;
    shown.textContent = shownText(kept.length, report);
  }

  function filterBy(market, index) {
    const key = market && seriesKey(market);
    // A market without findings is no choice of the list; it is said that there is none.
    set({ ...none, market: key && markets.has(key) ? key : "", day: index });
    if (key && !markets.has(key)) {
      made.use([]);
      made.root.hidden = true;
      shown.textContent = `No findings of ${seriesName(market)}.`;
    }
    document.getElementById("findings").scrollIntoView();
    shown.focus({ preventScroll: true }); // so that the next key is for what is shown now
  }

  function showFinding(finding) {
    set({ ...none, text: finding.finding_id });
    const button = made.find(finding.finding_id);
    if (button?.getAttribute("aria-expanded") === "false") button.click();
    button?.scrollIntoView({ block: "center" });
    button?.focus({ preventScroll: true });
  }

  place.append(
    element("div", { class: "controls" },
      element("div", { class: "field wide" }, element("label", { for: id }, "Search"), input),
      ...["severity", "check", "market"].map((name) => choices[name].field),
      values("status").length > 1 ? choices.status.field : null),
    element("div", { class: "result" }, shown, chip, reset), made.root);
  set({});
  return { filterBy, showFinding };
}

function shownText(kept, report) {
  const listed = report.findings.length;
  const rest = report.findings_total > listed ? ` This page has the worst of ${count(report.findings_total)}.` : "";
  if (!kept) return `No finding matches the filters; there are ${count(listed)}.${rest}`;
  return `${count(kept)} of ${plural(listed, "finding")}.${rest}`;
}
