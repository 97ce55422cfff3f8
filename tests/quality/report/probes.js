// What the tests ask of the page, inside the browser.
({
  // How many colours a canvas shows.
  colours(canvas) {
    const seen = new Set();
    this.pixels(canvas, (red, green, blue, opacity) => {
      if (opacity) seen.add((red << 16) | (green << 8) | blue);
    });
    return seen.size;
  },

  // Which part of a canvas has the see-through yellow of a marked interval.
  marked(canvas) {
    let [marked, all] = [0, 0];
    this.pixels(canvas, (red, green, blue, opacity) => {
      all += 1;
      marked += red > 200 && green > 160 && blue < 120 && opacity > 40 && opacity < 130;
    });
    return marked / all;
  },

  pixels(canvas, visit) {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    for (let at = 0; at < data.length; at += 4) visit(...data.subarray(at, at + 4));
  },

  // Texts whose contrast with their ground is under 4.5 (WCAG 2.1, 1.4.3): [ratio, text].
  poor() {
    const linear = (value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    const light = (text) => {
      const [red, green, blue] = text.match(/[\d.]+/g).map((part) => linear(part / 255));
      return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const ground = (element) => {
      const { backgroundColor } = getComputedStyle(element);
      return /, 0\)$/.test(backgroundColor) ? ground(element.parentElement) : backgroundColor;
    };
    const holdsText = (element) =>
      [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    return [...document.querySelectorAll("main *, header *, footer *")]
      .filter((element) => element.offsetParent && holdsText(element))
      .map((element) => {
        const both = [light(getComputedStyle(element).color), light(ground(element))];
        return [(Math.max(...both) + 0.05) / (Math.min(...both) + 0.05), element.textContent];
      })
      .filter(([ratio]) => ratio < 4.5);
  },

  // What can be used, or stands for a picture, and has no name.
  unnamed() {
    const named = (element) =>
      element.getAttribute("aria-label") || element.labels?.length ||
      (element.tagName !== "SELECT" && element.textContent.trim());
    const all = "button, select, input, canvas[tabindex], [role=img], [role=region], summary, nav";
    return [...document.querySelectorAll(all)]
      .filter((element) => !element.closest("[hidden]") && !named(element))
      .map((element) => element.outerHTML.slice(0, 80));
  },

  doubled() {
    const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
    return ids.filter((id, place) => ids.indexOf(id) !== place);
  },

  levels() {
    return [...document.querySelectorAll("h1, h2, h3")].map((element) => +element.tagName[1]);
  },
})
