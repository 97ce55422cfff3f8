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
  const lines = (market, column, value) => {
    const rows = market.days.rows[column];
    const open = found.get(`${seriesKey(market)}\n${column}`);
    return [
      `${isNothing(value) ? "Not checked" : `Score ${score(value / 1e4)}`} · ${day(startMs + column * DAY_MS)}`,
      seriesName(market), `${plural(rows, "row")}`, ...(open ? [plural(open, "open finding")] : []),
    ];
  };
  const heat = grid({
    name: "Score by market and day",
    rows: markets.length,
    columns: days,
    label: (row) => (oneDataset ? marketName : seriesName)(markets[row]),
    marks: days > 45 ? monthMarks(startMs, days, (column) => column)
      : Array.from({ length: days }, (_, column) => [column, day(startMs + column * DAY_MS).replace(/ \d+$/, "")]),
    cell: (row, column) => {
      const value = markets[row].days.score[column];
      return { fill: isNothing(value) ? "none" : `grade-${grade(value / 1e4)}`, lines: lines(markets[row], column, value) };
    },
    choose: (row, column) => filterBy(markets[row], column),
    least: 2.4,
    most: 64,
    height: () => (markets.length > 24 ? 17 : 28),
  });
  const scale = GRADES.map((text, place) => [`grade-${place}`, text]);
  const table_ = element("details", { class: "more-figures" }, element("summary", {}, "Figures by market"), marketTable(markets));
  place.append(legend([...scale, ["none", "not checked"]]), heat.root, table_);
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
  const calendars = element("div", { class: "calendars" });
  const reasons = element("div");
  let grids = [];
  const worst = sorted(report.markets, (market) => -lossesOf(market.missing), 1);
  const options = [["", `All ${plural(worst.length, "market")} together`],
    ...worst.map((market, index) => [index, `${seriesName(market)} (${plural(lossesOf(market.missing), "loss", "losses")})`])];
  const show = (value) => {
    const market = value === "" ? null : worst[value];
    const chosen = market ? [market] : worst;
    grids.forEach((made) => made.stop());
    grids = calendarsOf(chosen, market, startMs, days, filterBy);
    calendars.replaceChildren(...grids.map((made) => made.part));
    reasons.replaceChildren(reasonList(summed(chosen)));
  };
  const { field } = choice("Market", options, show);
  place.append(...(worst.length > 1 ? [element("div", { class: "controls" }, field)] : []), calendars, reasons);
  show("");
}

const WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

function calendarsOf(markets, market, startMs, days, filterBy) {
  const sums = missingByDay(markets, days);
  return calendarOf(startMs, days).map(({ year, cells, weeks }) => {
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
      most: Math.max(20, Math.min(36, 1000 / weeks)),
      height: (width) => Math.round(width),
    });
    return { ...made, part: element("div", { class: "calendar" }, made.root) };
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
    entry("whole", "Complete", "Every row that is known to be due is there."));
}

const FIRST_CHARTS = 6;

function chartSection(report, byId, showFinding) {
  const place = host("charts");
  if (!report.charts.length) return place.append(empty("No gap and no spike: there is nothing to show."));
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
      finding ? element("button", { type: "button", class: "quiet", onclick: () => showFinding(finding) }, "Show the finding") : null);
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
  `${time(chart.mark_start * 1000)}, ${duration((chart.mark_end - chart.mark_start) * 1000)}`;

function deviationSection(report) {
  const place = host("deviations");
  if (!report.deviations.length) return place.append(empty("No asset is stored of two venues, so there is nothing to compare."));
  place.append(element("div", { class: "cards" }, ...report.deviations.map((series) => {
    const outside = series.bps.filter((value) => Math.abs(value) > series.threshold_bps).length;
    const said = outside ? `Apart at ${count(outside)} of ${plural(series.bps.length, "point")}.` : "Never apart.";
    return element("figure", { class: "card" },
      element("figcaption", {}, element("strong", {}, `${series.symbol}: ${series.first} against ${series.second}`), element("p", {}, said)),
      deviationPlot(series).root,
      legend([["band", `within ${number(series.threshold_bps)} bp`], ["bad", "apart"]]));
  })));
}

function repairSection(report) {
  const place = host("repairs");
  if (!report.repairs.length) return place.append(empty("No repairs: all rows are as their source sent them."));
  const interval = (row) => `${time(Date.parse(row.start))}, ${duration(Date.parse(row.end) - Date.parse(row.start))}`;
  place.append(table({
    name: "Repairs",
    columns: [
      timeColumn("Repaired at", (row) => row.repaired_at),
      textColumn("Market", marketName),
      textColumn("Dataset", (row) => row.dataset),
      textColumn("Interval", (row) => row.start, interval),
      textColumn("Method", (row) => row.method),
      textColumn("Source", (row) => row.source),
      { ...textColumn("Why", (row) => row.why), kind: "prose" },
      numberColumn("Inserted", (row) => row.inserted),
      numberColumn("Updated", (row) => row.updated),
      textColumn("Status", (row) => row.status),
      { ...textColumn("Id", (row) => row.repair_id), kind: "code" },
    ],
    rows: report.repairs,
    first: { by: 0, sign: -1 },
  }).root);
}

function latencySection(report, startMs) {
  const place = host("latency");
  const known = report.latency.filter((series) => series.days.length);
  if (!known.length) return place.append(empty("No rows were recorded live, so there is no latency to show."));
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
      timeColumn("Started", (row) => row.started_at),
      { ...textColumn("Command", (row) => row.command), kind: "code" },
      textColumn("Status", (row) => row.status),
      numberColumn("Rows", (row) => row.rows, (row) => count(row.rows)),
      { ...textColumn("Id", (row) => row.job_id), kind: "code" },
    ],
    rows: jobs,
    first: { by: 0, sign: -1 },
  }).root);
}
