// The sections of the page, but for the findings. Each fills its host from the document.

const openOf = (market) => SEVERITIES.reduce((sum, name) => sum + market.findings[name], 0);

function scoreSection(report, startMs, days, filterBy) {
  const place = host("score");
  if (!report.markets.length) return place.append(empty("No market was checked in this range."));
  const markets = sorted(report.markets, (market) => market.scores.score, 1);
  const oneDataset = new Set(markets.map((market) => market.dataset)).size === 1;
  const found = new Map();
  for (const finding of report.findings) {
    if (finding.status !== "open") continue;
    const key = `${seriesKey(finding)}\n${Math.floor((Date.parse(finding.start) - startMs) / DAY_MS)}`;
    found.set(key, (found.get(key) ?? 0) + 1);
  }
  // Where the page holds the worst findings only, a day may have more than are counted here.
  const listed = report.findings_total > report.findings.length ? " on this page" : "";
  const lines = (market, index, value) => {
    const rows = market.days.rows[index];
    const open = found.get(`${seriesKey(market)}\n${index}`);
    return [
      `${isNothing(value) ? "Not checked" : `Score ${score(value / 1e4)}`} · ${day(startMs + index * DAY_MS)}`,
      seriesName(market), plural(rows, "row"), ...(open ? [plural(open, "open finding") + listed] : []),
    ];
  };
  const columns = columnsOf(stretchesOf(markets, days));
  const heat = grid({
    name: "Score by market and day",
    rows: markets.length,
    columns: columns.length,
    label: (row) => (oneDataset ? marketName : seriesName)(markets[row]),
    marks: columns.length > 45 ? monthMarks(startMs, columns.length, (column) => columns[column])
      : columns.map((index, column) => [column, index === null ? "" : day(startMs + index * DAY_MS).replace(/ \d+$/, "")]).filter(([, text]) => text),
    cell: (row, column) => {
      const index = columns[column];
      if (index === null) return null;
      const value = markets[row].days.score[index];
      return { fill: isNothing(value) ? "none" : `grade-${grade(value / 1e4)}`, lines: lines(markets[row], index, value) };
    },
    choose: (row, column) => filterBy(markets[row], columns[column]),
    least: 2.4,
    most: 64,
    height: () => (markets.length > 24 ? 17 : 28),
  });
  const scale = GRADES.map((text, place) => [`grade-${place}`, text]);
  const table_ = element("details", { class: "more-figures" }, element("summary", {}, "Figures by market"), marketTable(markets));
  const paused = columns.includes(null) ? element("p", { class: "note" }, `Pauses of more than ${PAUSE_DAYS} days are omitted.`) : null;
  place.append(...[legend([...scale, ["none", "not checked"]]), heat.root, paused, table_].filter(Boolean));
}

function marketTable(markets) {
  const part = (name) => ({ ...numberColumn(words(name), (row) => row.scores[name], (row) => score(row.scores[name])), title: name[0].toUpperCase() + name.slice(1) });
  return table({
    name: "Figures by market",
    columns: [
      textColumn("Market", marketName),
      textColumn("Dataset", (row) => row.dataset),
      part("score"), ...PARTS.map(part),
      numberColumn("Rows", (row) => row.rows, (row) => count(row.rows)),
      numberColumn("Expected", (row) => row.expected, (row) => count(row.expected)),
      ...REASONS.map((reason) => numberColumn(MEANINGS[reason][0], (row) => row.missing[reason], (row) => count(row.missing[reason]))),
      numberColumn("Open findings", openOf, (row) => count(openOf(row))),
    ],
    rows: markets,
  }).root;
}

function completenessSection(report, startMs, days, filterBy) {
  const place = host("completeness");
  if (!report.markets.length) return place.append(empty("No market was checked in this range."));
  const stretches = stretchesOf(report.markets, days);
  const calendars = element("div", { class: "calendars" });
  const reasons = element("div");
  let grids = [];
  const worst = sorted(report.markets, (market) => -lossesOf(market.missing), 1);
  const options = [["", `All ${worst.length} series together`],
    ...worst.map((market, index) => [index, `${seriesName(market)} (${plural(lossesOf(market.missing), "loss", "losses")})`])];
  const show = (value) => {
    const market = value === "" ? null : worst[value];
    const chosen = market ? [market] : worst;
    grids.forEach((made) => made.stop());
    grids = calendarsOf(chosen, market, startMs, days, stretches, filterBy);
    calendars.replaceChildren(...grids.map((made) => made.part));
    reasons.replaceChildren(reasonList(summed(chosen)));
  };
  const { field } = choice("Market", options, show);
  place.append(...(worst.length > 1 ? [element("div", { class: "controls" }, field)] : []), calendars, reasons);
  show("");
}

const WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

const CALENDAR_LABELS_PX = 52; // the names of the weekdays, and the space beside them
const LEAST_CALENDAR_PX = 70; // the name of a month with its year

function calendarsOf(markets, market, startMs, days, stretches, filterBy) {
  const sums = missingByDay(markets, days);
  const years = stretches.flatMap((stretch) => calendarOf(startMs, stretch));
  const most = Math.max(20, Math.min(36, 1000 / Math.max(...years.map(({ weeks }) => weeks))));
  return years.map(({ year, cells, weeks }) => {
    const at = (row, column) => cells.get(`${row},${column}`);
    const first = (column) => WEEKDAYS.map((_, row) => at(row, column)).find((index) => !isNothing(index));
    const made = grid({
      name: `Completeness by day, ${year}`,
      rows: 7,
      columns: weeks,
      label: (row) => WEEKDAYS[row],
      marks: monthMarks(startMs, weeks, first),
      cell: (row, column) => {
        const index = at(row, column);
        return index === undefined ? null : dayCell(sums[index], startMs + index * DAY_MS);
      },
      caption: (row, column) => String(new Date(startMs + at(row, column) * DAY_MS).getUTCDate()),
      choose: (row, column) => filterBy(market, at(row, column)),
      least: 13,
      most,
      height: (width) => Math.round(width),
    });
    const part = element("div", { class: "calendar" }, made.root);
    part.style.flexBasis = `${Math.max(LEAST_CALENDAR_PX, weeks * most) + CALENDAR_LABELS_PX}px`;
    return { ...made, part };
  });
}

function dayCell(sum, ms) {
  if (sum === null) return { fill: "none", lines: [day(ms), "Nothing was checked."] };
  const worst = worstReason(sum.missing);
  const listed = REASONS.filter((reason) => sum.missing[reason])
    .map((reason) => `${count(sum.missing[reason])} ${MEANINGS[reason][0].toLowerCase()}`);
  return { fill: worst ?? "whole", lines: [day(ms), plural(sum.rows, "row"), ...(listed.length ? listed : ["Nothing is missing."])] };
}

function reasonList(totals) {
  const entry = (name, title, meaning, amount) => element("li", { class: amount === 0 ? "absent" : null },
    element("span", { class: `swatch ${name}`, "aria-hidden": "true" }),
    element("div", {}, element("strong", {}, title), isNothing(amount) ? null : element("b", {}, count(amount)), element("p", {}, meaning)));
  return element("ul", { class: "reasons" },
    ...REASONS.map((reason) => entry(reason, ...MEANINGS[reason], totals[reason])),
    entry("whole", "Complete", "Every expected row is stored."));
}

const FIRST_CHARTS = 6;

function chartSection(report, byId, showFinding) {
  const place = host("charts");
  if (!report.charts.length) return place.append(empty("No gaps and no spikes."));
  const kinds = distinct(report.charts.map((chart) => chart.kind));
  const cards = element("div", { class: "cards" });
  const more = element("button", { type: "button", class: "quiet more" });
  let [made, chosen, all] = [[], "", false];
  const card = (chart) => {
    const finding = byId.get(chart.finding_id);
    const drawn = candlePlot(chart);
    made.push(drawn);
    return element("figure", { class: "card" },
      element("figcaption", {},
        element("span", { class: "kind" }, words(chart.kind)),
        element("strong", {}, chart.title),
        finding ? element("p", {}, finding.message) : null),
      drawn.root,
      legend([["mark", markText(chart)], ...(chart.second_opinion ? [["second", chart.second_opinion.name]] : [])]),
      finding ? element("button", { type: "button", class: "quiet", "aria-label": `Show the finding: ${chart.title}, ${finding.message}`, onclick: () => showFinding(finding) }, "Show the finding") : null);
  };
  const show = () => {
    made.forEach((drawn) => drawn.stop());
    made = [];
    const charts = report.charts.filter((chart) => !chosen || chart.kind === chosen);
    cards.replaceChildren(...charts.slice(0, all ? charts.length : FIRST_CHARTS).map(card));
    more.hidden = all || charts.length <= FIRST_CHARTS;
    more.textContent = `Show all ${charts.length} charts`;
  };
  more.addEventListener("click", () => {
    all = true;
    show();
  });
  const { field } = choice("Kind", [["", `All (${report.charts.length})`], ...kinds.map((kind) => [kind, words(kind)])], (value) => {
    chosen = value;
    show();
  });
  place.append(...(kinds.length > 1 ? [element("div", { class: "controls" }, field)] : []), cards, more);
  show();
}

const markText = (chart) =>
  `${time(chart.mark_start * 1000)}, ${duration((chart.mark_end - chart.mark_start) * 1000)}`
  + (foldOf(chart, spacing(chart.times)) ? ", without its middle" : "");

function deviationSection(report) {
  const place = host("deviations");
  if (!report.deviations.length) return place.append(empty("No asset has bars of two venues to compare."));
  place.append(element("div", { class: "cards" }, ...report.deviations.map((series) => {
    const limit = `${number(series.threshold_bps)} bp`;
    const said = series.apart
      ? `The prices differ by more than ${limit} in ${count(series.apart)} of ${plural(series.compared, "bar")}.`
      : `The prices never differ by more than ${limit}, in ${plural(series.compared, "bar")}.`;
    return element("figure", { class: "card" },
      element("figcaption", {},
        element("span", { class: "kind" }, series.dataset),
        element("strong", {}, `${series.symbol}: ${series.first} against ${series.second}`),
        element("p", {}, said)),
      deviationPlot(series).root,
      legend([["second", "mean"], ["range", "lowest to highest"], ["bad", "beyond the band"], ["band", `within ${limit}`]]));
  })));
}

function repairSection(report) {
  const place = host("repairs");
  if (!report.repairs.length) return place.append(empty("No repairs: all rows are as the source sent them."));
  const interval = (row) => twoLines(time(Date.parse(row.start)), duration(Date.parse(row.end) - Date.parse(row.start)));
  const rows = (row) => twoLines(`${count(row.inserted)} new`, `${count(row.updated)} changed`);
  place.append(table({
    name: "Repairs",
    columns: [
      momentColumn("Repaired at", (row) => row.repaired_at),
      textColumn("Method", (row) => row.method, (row) => twoLines(row.method, row.source)),
      seriesColumn(),
      textColumn("Interval", (row) => row.start, interval),
      { ...textColumn("Why", (row) => row.why), kind: "prose" },
      { ...numberColumn("Rows", (row) => row.inserted + row.updated, rows), kind: "number" },
      textColumn("Status", (row) => row.status, (row) => twoLines(row.status, element("span", { class: "code" }, row.repair_id))),
    ],
    rows: report.repairs,
    stack: true,
    first: { by: 0, sign: -1 },
  }).root);
}

function latencySection(report, startMs) {
  const place = host("latency");
  const known = report.latency.filter((series) => series.days.length);
  if (!known.length) return place.append(empty("No rows were recorded live, so no latency is known."));
  const all = sorted(known, seriesName, 1);
  const chart = element("div");
  let drawn = null;
  const show = (index) => {
    drawn?.stop();
    drawn = latencyPlot(all[index], startMs);
    chart.replaceChildren(drawn.root);
  };
  const { field } = choice("Market", all.map((series, index) => [index, seriesName(series)]), show);
  place.append(...(all.length > 1 ? [element("div", { class: "controls" }, field)] : [element("h3", {}, seriesName(all[0]))]), chart);
  show(0);
}

function provenanceSection(report) {
  const { tables, jobs } = report.provenance;
  const place = host("provenance");
  const older = report.provenance.jobs_total - jobs.length;
  place.append(element("h3", {}, "Tables"));
  place.append(!tables.length ? empty("No table versions are recorded.") : table({
    name: "Table versions",
    columns: [
      textColumn("Table", (row) => row.table),
      { ...textColumn("Id", (row) => row.id), kind: "code" },
      numberColumn("Version", (row) => row.version),
      numberColumn("Rows", (row) => row.rows, (row) => count(row.rows)),
    ],
    rows: tables,
  }).root, element("h3", {}, "Jobs"));
  place.append(!jobs.length ? empty("No jobs are recorded.") : table({
    name: "Jobs",
    columns: [
      momentColumn("Started", (row) => row.started_at),
      { ...textColumn("Command", (row) => row.command), kind: "code" },
      textColumn("Status", (row) => row.status),
      numberColumn("Rows", (row) => row.rows, (row) => count(row.rows)),
      { ...textColumn("Id", (row) => row.job_id), kind: "code" },
    ],
    rows: jobs,
    first: { by: 0, sign: -1 },
  }).root);
  if (older > 0) place.append(element("p", { class: "note" }, `And ${plural(older, "older job")}: \`lake audit\` lists all jobs.`));
}
