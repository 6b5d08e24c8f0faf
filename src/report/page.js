// Gradio calls this with `element`, `props` and `watch`. Values are inserted as text, never as markup.
const target = element.querySelector(".result");

const make = (tag, name, ...inside) => {
  const made = document.createElement(tag);
  made.className = name;
  made.append(...inside);
  return made;
};

const frame = ({ uri, width, height }, caption) => {
  const image = Object.assign(new Image(width, height), { src: uri, alt: caption });
  const box = make("div", "image-frame", image);
  box.style.aspectRatio = `${width} / ${height}`;
  return box;
};

// One caption in large type, with its attention maps over the image.
const chosenCaption = (result, { caption, map }) => {
  const box = frame(result.image, caption), text = make("p", "caption", caption || "(empty caption)");
  text.dir = "auto";
  if (map) addAttentionMaps(box.firstChild, text, map);
  const hint = !map ? "This model has no attention maps."
    : map.words.length ? "Point at a word or tap it to see where the model attended." : "";
  return [box, text, make("p", "hint", hint)];
};

const row = ({ caption, nats }) => {
  const bar = make("span", "bar"), text = make("span", "text", caption || "(empty caption)");
  text.dir = "auto";
  bar.style.setProperty("--fraction", Math.exp(-nats));
  const button = make("button", "hypothesis", text, make("span", "score", bar, nats.toFixed(2)));
  button.type = "button";
  return button;
};

const drawResult = (result) => {
  const card = make("article", "card"), rows = result.hypotheses.map(row);
  const choose = (chosen) => {
    rows.forEach((button, index) => button.setAttribute("aria-pressed", String(index === chosen)));
    card.replaceChildren(...chosenCaption(result, result.hypotheses[chosen]));
  };
  rows.forEach((button, index) => button.addEventListener("click", () => choose(index)));
  choose(0);
  const others = rows.length > 1
    ? [make("h2", "", "Beams"),
      make("p", "hint", "Nats per token: lower is more certain. Press a caption to see its attention maps."),
      make("div", "hypotheses", ...rows)]
    : [make("p", "hint", "One beam; start the page with num_beams=4 to see several.")];
  return [card, ...others, make("p", "hint", `${result.name}, ${result.seconds.toFixed(1)} s`)];
};

const draw = (result) => {
  if (!result) return [make("p", "empty", "The caption is shown here.")];
  if (result.error) {
    const problem = make("p", "problem", result.error);
    problem.setAttribute("role", "alert");
    return [problem];
  }
  return drawResult(result);
};

const show = () => {
  target.replaceChildren(...draw(props.value));
  if (props.value && target.getBoundingClientRect().top > innerHeight / 2) target.scrollIntoView();  // on a phone
};
watch("value", show);
show();

// Handle an image that is pasted anywhere like an uploaded one.
document.addEventListener("paste", (event) => {
  const input = document.querySelector("#upload input[type=file]");
  if (!input || !event.clipboardData?.files.length) return;
  input.files = event.clipboardData.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
  event.preventDefault();
});
