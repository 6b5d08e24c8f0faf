"use strict";
(() => {
  const cards = [...document.querySelectorAll(".card")];
  if (!cards.length) return;
  const byId = (id) => document.getElementById(id);
  const maps = JSON.parse(byId("maps").textContent);
  const grid = byId("cards"), toolbar = byId("toolbar"), noMatch = byId("nothing"), query = byId("query");
  const buttons = [...toolbar.querySelectorAll("[data-view]")];
  let view = "random", ordered = null;

  // ---- views and search: images stay in the page and are hidden
  const textOf = (card) =>
    [...card.querySelectorAll(".caption, .references li, .name")].map((element) => element.textContent).join("\n").toLowerCase();
  const texts = new Map(cards.map((card) => [card, textOf(card)]));
  const rank = (card) => Number(view === "all" ? card.dataset.index : card.dataset[view]);

  const show = () => {
    const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    const mappedOnly = byId("mapped")?.checked;
    const inView = cards.filter((card) => view === "all" || view in card.dataset).sort((a, b) => rank(a) - rank(b));
    const found = new Set(inView.filter((card) =>
      words.every((word) => texts.get(card).includes(word)) && (!mappedOnly || card.dataset.index in maps)));
    if (ordered !== view) grid.append(...inView);
    ordered = view;
    for (const card of cards) card.hidden = !found.has(card);
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.view === view));
    byId("count").textContent = found.size === inView.length
      ? `${found.size} image${found.size === 1 ? "" : "s"}` : `${found.size} of ${inView.length} images`;
    noMatch.hidden = found.size > 0;
    noMatch.firstElementChild.textContent = inView.length ? "No image here matches." : "No image is in this view.";
    noMatch.lastElementChild.hidden = !inView.length || view === "all";
  };
  const choose = (name) => { view = name; show(); };
  for (const button of buttons) button.addEventListener("click", () => choose(button.dataset.view));
  noMatch.lastElementChild.addEventListener("click", () => choose("all"));
  query.addEventListener("input", show);
  byId("mapped")?.addEventListener("change", show);
  byId("references").addEventListener("change", (event) => {
    for (const details of document.querySelectorAll(".references")) details.open = event.target.checked;
  });

  const addMaps = (card) => addAttentionMaps(
    card.querySelector("img"), card.querySelector(".caption.tuned"), maps[card.dataset.index]);
  for (const card of cards) if (card.dataset.index in maps) addMaps(card);

  // ---- the first images: each word in turn, until someone points at them or stops it
  const players = [...document.querySelectorAll("#hero article")].map(addMaps).filter(Boolean);
  if (players.length) {
    const button = byId("play");
    let timer = 0, tick = 0;
    const step = () => { for (const [highlight, count] of players) highlight(tick % count); tick++; };
    const play = (on) => {
      clearInterval(timer);
      timer = on ? setInterval(step, 900) : 0;
      button.textContent = on ? "Pause" : "Play";
    };
    button.hidden = false;
    button.addEventListener("click", () => play(!timer));
    for (const event of ["pointerover", "focusin"]) byId("hero").addEventListener(event, () => play(false));
    step();
    play(!matchMedia("(prefers-reduced-motion: reduce)").matches);
  }
  toolbar.hidden = false;
  show();
})();
