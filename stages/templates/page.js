// Each player: two SVGs with a part of id "...-moving", a slider over the frames, a text, and a Play button.
// A frame is [iteration, loss, parameters, line or null, dot or null]; a line is [x1, y1, x2, y2], in the SVG's units.
"use strict";
for (const player of document.querySelectorAll(".player")) {
  const frames = JSON.parse(player.querySelector("script").textContent);
  const slider = player.querySelector("input");
  const button = player.querySelector("button");
  const output = player.querySelector("output");
  const name = player.dataset.experiment;
  const line = document.querySelector(`#${name}-fit-moving path`);
  const dot = document.querySelector(`#${name}-loss-moving use`);
  let timer = null;

  const show = () => {
    const [iteration, loss, parameters, ends, place] = frames[slider.value];
    line.style.strokeOpacity = ends ? 1 : 0;
    if (ends) line.setAttribute("d", `M ${ends[0]} ${ends[1]} L ${ends[2]} ${ends[3]}`);
    if (place) {
      dot.setAttribute("x", place[0]);
      dot.setAttribute("y", place[1]);
    }
    output.textContent = `iteration ${iteration}: loss ${loss}, ${parameters}`;
    slider.setAttribute("aria-valuetext", output.textContent);
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
  };
  const play = () => {
    if (Number(slider.value) === frames.length - 1) slider.value = 0;
    show();
    button.textContent = "Pause";
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      show();
      if (Number(slider.value) === frames.length - 1) stop();
    }, Math.max(30, Math.min(500, 8000 / frames.length))); // milliseconds; about 8 seconds in all, less for few frames, more for many
  };
  button.addEventListener("click", () => (timer === null ? play() : stop()));
  slider.addEventListener("input", () => {
    stop();
    show();
  });
  show();
}

// A formula wider than the page scrolls; only then must the keyboard reach it.
const formulas = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
for (const formula of document.querySelectorAll(".formula")) formulas.observe(formula);
