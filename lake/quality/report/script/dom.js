// Elements. Text of the document only ever becomes text nodes and attributes, never markup.

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const host = (name) => document.querySelector(`[data-host="${name}"]`);

// A colour of the theme that is shown now.
const colour = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const empty = (text) => element("p", { class: "empty" }, text);

const unused = (() => {
  let last = 0;
  return (name) => `${name}-${(last += 1)}`;
})();

// A labelled choice; `options` are [value, text].
function choice(label, options, onchange) {
  const id = unused("choice");
  const select = element("select", { id, onchange: () => onchange(select.value) },
    ...options.map(([value, text]) => element("option", { value }, text)));
  return { select, field: element("div", { class: "field" }, element("label", { for: id }, label), select) };
}

function legend(entries) {
  return element("ul", { class: "legend" }, ...entries.map(([name, text]) =>
    element("li", {}, element("span", { class: `swatch ${name}`, "aria-hidden": "true" }), text)));
}

// Text that follows a pointer or the keyboard's place in a chart.
const tip = (() => {
  const box = element("div", { class: "tip", "aria-hidden": "true", hidden: true });
  document.body.append(box);
  return {
    show(lines, x, y) {
      box.replaceChildren(...lines.map((line, place) => element(place ? "div" : "strong", {}, line)));
      box.hidden = false;
      const width = box.offsetWidth;
      const left = Math.min(Math.max(8, x - width / 2), document.documentElement.clientWidth - width - 8);
      const above = y - box.offsetHeight - 12;
      box.style.left = `${left}px`;
      box.style.top = `${above > 4 ? above : y + 24}px`;
    },
    hide() {
      box.hidden = true;
    },
  };
})();

// Calls `draw` when the element's width changes; canvases are not laid out by the browser.
function onWidth(target, draw) {
  let last = 0;
  new ResizeObserver(() => {
    const width = target.clientWidth;
    if (width && width !== last) {
      last = width;
      draw(width);
    }
  }).observe(target);
}

// What has to be drawn again when the theme changes.
const drawings = new Set();
