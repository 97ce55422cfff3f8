// Puts the page together, and keeps it right when the theme changes or it is printed.

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const theme = document.getElementById("theme");
const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";

function themed() {
  theme.textContent = isDark() ? "Light theme" : "Dark theme";
  drawings.forEach((draw) => draw());
}

function keepThemed() {
  theme.hidden = false;
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    themed();
  });
  dark.addEventListener("change", themed);
  let before = null;
  // Paper is white, and holds no part that was not scrolled to.
  window.addEventListener("beforeprint", () => {
    before = document.documentElement.dataset.theme ?? null;
    document.documentElement.dataset.theme = "light";
    document.querySelectorAll(".plot").forEach((root) => root.drawNow());
    themed();
  });
  window.addEventListener("afterprint", () => {
    if (before === null) delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = before;
    themed();
  });
}

// Says in the bar which section is read.
function keepPlace() {
  const bar = document.querySelector("nav");
  const links = new Map([...bar.querySelectorAll("a")].map((link) => [link.hash.slice(1), link]));
  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const link = links.get(target.id);
      if (!isIntersecting) link.removeAttribute("aria-current");
      else {
        link.setAttribute("aria-current", "true");
        bar.scrollLeft = link.offsetLeft - bar.clientWidth / 2;
      }
    }
  }, { rootMargin: "-30% 0px -69% 0px" });
  for (const id of links.keys()) watch.observe(document.getElementById(id));
}

function fill(report) {
  const startMs = Date.parse(report.start);
  const days = Math.round((Date.parse(report.end) - startMs) / DAY_MS);
  const byId = new Map(report.findings.map((finding) => [finding.finding_id, finding]));
  document.getElementById("details").hidden = false;
  const { filterBy, showFinding } = findingSection(report, startMs);
  scoreSection(report, startMs, days, filterBy);
  completenessSection(report, startMs, days, filterBy);
  chartSection(report, byId, showFinding);
  deviationSection(report);
  repairSection(report);
  latencySection(report, startMs);
  provenanceSection(report);
  keepThemed();
  keepPlace();
  themed();
  document.documentElement.dataset.ready = "";
}

function complain(error) {
  const box = document.getElementById("trouble");
  const old = typeof DecompressionStream === "undefined";
  box.textContent = old
    ? "This page shows only the totals. The rest is compressed, and this browser is too old to decompress it."
    : `This page shows only the totals. The rest cannot be shown: ${error.message}`;
  box.hidden = false;
}

unpacked(document.getElementById("document").textContent).then(fill).catch((error) => {
  complain(error);
  throw error; // so that the console has the place
});
