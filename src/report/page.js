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

const tidy = (caption) => caption.replace(/ +([,.;:!?%)\]]|'\w)/g, "$1") || "(empty caption)";

const copyButton = (text) => {
  const button = Object.assign(make("button", "copy", "Copy"), { type: "button", hidden: !navigator.clipboard });
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  });
  return button;
};

// One caption in large type, with its attention maps over the image.
const chosenCaption = (result, { caption, map }) => {
  const box = frame(result.image, caption), text = make("p", "caption", tidy(caption));
  text.dir = "auto";
  if (map) addAttentionMaps(box.firstChild, text, map);
  const hint = !map ? "This model has no attention maps."
    : map.words.length ? "Point at a word or tap it to see where the model attended." : "";
  return [box, text, make("p", "hint", copyButton(tidy(caption)), hint)];
};

const row = ({ caption, nats }) => {
  const text = make("span", "text", tidy(caption));
  text.dir = "auto";
  const button = make("button", "hypothesis", text, make("span", "score", `${Math.round(100 * Math.exp(-nats))}%`));
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
    ? [make("h2", "", "Best captions of the beam search"),
      make("p", "hint", "With the model's certainty: the mean probability of a token. Press one to see its attention maps."),
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

// Handle an image that is pasted anywhere, and a sample that is pressed, like an uploaded one.
const takeFile = (file) => {
  const input = document.querySelector("#upload input[type=file]"), transfer = new DataTransfer();
  if (!input) return;
  transfer.items.add(file);
  input.files = transfer.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
};
document.addEventListener("paste", (event) => {
  if (!event.clipboardData?.files.length) return;
  takeFile(event.clipboardData.files[0]);
  event.preventDefault();
});
document.addEventListener("click", async (event) => {
  const image = event.target.closest?.(".sample")?.firstElementChild;
  if (image) takeFile(new File([await (await fetch(image.src)).blob()], `${image.alt}.jpg`, { type: "image/jpeg" }));
});
