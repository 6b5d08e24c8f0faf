"use strict";
// Attention maps: dark where a word attended little, clear and warm where it attended much.
const addAttentionMaps = (() => {
  const STOPS = [[0, 12, 10, 38, 0.7], [0.4, 84, 24, 104, 0.56], [0.7, 226, 92, 44, 0.42], [1, 255, 214, 96, 0.34]];
  const PALETTE = Array.from({ length: 256 }, (_, level) => {
    const t = level / 255, after = Math.max(1, STOPS.findIndex((stop) => stop[0] >= t));
    const [low, high] = [STOPS[after - 1], STOPS[after]], fraction = (t - low[0]) / (high[0] - low[0]);
    const mix = low.map((value, index) => value + fraction * (high[index] - value));
    return [mix[1], mix[2], mix[3], 255 * mix[4]];
  });

  const paint = (canvas, map, word) => {
    const levels = atob(map.heat[word]);
    const small = Object.assign(document.createElement("canvas"), { width: map.width, height: map.height });
    const pen = small.getContext("2d");
    const pixels = pen.createImageData(map.width, map.height);
    for (let cell = 0; cell < levels.length; cell++) pixels.data.set(PALETTE[levels.charCodeAt(cell)], 4 * cell);
    pen.putImageData(pixels, 0, 0);
    const brush = canvas.getContext("2d"), [left, top, right, bottom] = map.region;
    brush.clearRect(0, 0, canvas.width, canvas.height);
    brush.imageSmoothingQuality = "high";
    brush.drawImage(small, left * canvas.width, top * canvas.height,
      (right - left) * canvas.width, (bottom - top) * canvas.height);
  };

  // Make the words of `caption` buttons, each of which shows its map over `image`, whose width and height are set.
  // map: one entry of attention.json. Returns a function that shows the map of a word (-1: none) and their number.
  return (image, caption, map) => {
    if (!image || !map.words.length) return;
    const canvas = document.createElement("canvas");
    canvas.width = Number(image.getAttribute("width"));
    canvas.height = Number(image.getAttribute("height"));
    canvas.setAttribute("aria-hidden", "true");
    image.after(canvas);
    let pinned = -1;
    const highlight = (word) => {
      words.forEach((button, index) => button.classList.toggle("on", index === word));
      canvas.classList.toggle("on", word >= 0);
      if (word >= 0) paint(canvas, map, word);
    };
    const pin = (word) => {
      pinned = word;
      words.forEach((button, index) => button.setAttribute("aria-pressed", String(index === word)));
      highlight(word);
    };
    const words = map.words.map((text, index) => {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", className: "word", textContent: text, tabIndex: index ? -1 : 0 });
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && highlight(index));
      button.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && highlight(pinned));
      button.addEventListener("focus", () => button.matches(":focus-visible") && highlight(index));
      button.addEventListener("blur", () => highlight(pinned));
      button.addEventListener("click", () => pin(pinned === index ? -1 : index));
      return button;
    });
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
    caption.addEventListener("keydown", (event) => {
      if (event.key === "Escape") pin(-1);
      if (!(event.key in step)) return;
      const next = Math.min(words.length - 1, Math.max(0, words.indexOf(event.target) + step[event.key]));
      words.forEach((button, index) => { button.tabIndex = index === next ? 0 : -1; });
      words[next].focus();
      event.preventDefault();
    });
    caption.setAttribute("role", "group");
    caption.setAttribute("aria-label", `${caption.textContent}. Attention maps: arrow keys move between words.`);
    const isMark = (button) => /^[,.;:!?%)\]]/.test(button?.textContent);
    caption.replaceChildren(...words.flatMap((button, index) => isMark(words[index + 1]) ? [button] : [button, " "]));
    return [highlight, words.length];
  };
})();
