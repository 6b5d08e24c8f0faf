// Gradio calls this with `element`, `props` and `watch`. What comes from outside goes in as text, never as markup.
const place = element.querySelector(".answer");

const make = (tag, name, ...inside) => {
  const made = document.createElement(tag);
  made.className = name;
  made.append(...inside);
  return made;
};

const picture = ({ uri, width, height }, caption) => {
  const image = Object.assign(new Image(width, height), { src: uri, alt: caption });
  const box = make("div", "picture", image);
  box.style.aspectRatio = `${width} / ${height}`;
  return box;
};

// One caption large, with its word maps over the picture.
const spoken = (answer, { caption, map }) => {
  const box = picture(answer.picture, caption), text = make("p", "caption", caption || "(says nothing)");
  text.dir = "auto";
  if (map) addWordMaps(box.firstChild, text, map);
  const hint = !map ? "This model has no word maps."
    : map.words.length ? "Point at a word or tap it to see where the model looked." : "";
  return [box, text, make("p", "hint", hint)];
};

const row = ({ caption, nats }) => {
  const bar = make("span", "bar"), text = make("span", "text", caption || "(says nothing)");
  text.dir = "auto";
  bar.style.setProperty("--share", Math.exp(-nats));
  const button = make("button", "alternative", text, make("span", "score", bar, nats.toFixed(2)));
  button.type = "button";
  return button;
};

const drawAnswer = (answer) => {
  const card = make("article", "card"), rows = answer.alternatives.map(row);
  const choose = (chosen) => {
    rows.forEach((button, place) => button.setAttribute("aria-pressed", String(place === chosen)));
    card.replaceChildren(...spoken(answer, answer.alternatives[chosen]));
  };
  rows.forEach((button, place) => button.addEventListener("click", () => choose(place)));
  choose(0);
  const others = rows.length > 1
    ? [make("h2", "", "What the beams ended with"),
      make("p", "hint", "Nats per token: the lower, the surer. Press a caption to see its words in the picture."),
      make("div", "alternatives", ...rows)]
    : [make("p", "hint", "One beam, so there are no alternatives; start the page with num_beams=4 to see some.")];
  return [card, ...others, make("p", "hint", `${answer.name}, ${answer.seconds.toFixed(1)} s`)];
};

const draw = (answer) => {
  if (!answer) return [make("p", "empty", "The caption will stand here.")];
  if (answer.error) {
    const problem = make("p", "problem", answer.error);
    problem.setAttribute("role", "alert");
    return [problem];
  }
  return drawAnswer(answer);
};

const show = () => {
  place.replaceChildren(...draw(props.value));
  if (props.value && place.getBoundingClientRect().top > innerHeight / 2) place.scrollIntoView();  // on a phone
};
watch("value", show);
show();

// A picture pasted anywhere goes the way of a chosen one.
document.addEventListener("paste", (event) => {
  const input = document.querySelector("#place input[type=file]");
  if (!input || !event.clipboardData?.files.length) return;
  input.files = event.clipboardData.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
  event.preventDefault();
});
