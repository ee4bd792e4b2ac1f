// Each player: two SVGs with a part of id "...-moving", a slider over the rows of the course, a text, and a Play button.
// A row is [iteration, loss, parameters ..., p, q, r]: the line p x + q y + r = 0, or nulls where there is none.
"use strict";

// A point given as shares of the axes' width and height, in the SVG's units.
const place = (axes, u, v) => [
  axes.left + u * (axes.right - axes.left),
  axes.bottom - v * (axes.bottom - axes.top),
];

// Where a line crosses the axes, two of their diagonals to either side of its point nearest to the centre; it is
// clipped there. Null where it is out of sight, 10,000 axes away.
const segment = (axes, p, q, r) => {
  let [a, b, c] = [p * (axes.x1 - axes.x0), q * (axes.y1 - axes.y0), p * axes.x0 + q * axes.y0 + r];
  const norm = Math.hypot(a, b);
  if (!(norm > 0 && norm < Infinity)) return null;
  [a, b, c] = [a / norm, b / norm, c / norm];
  const distance = (a + b) / 2 + c;
  if (!(Math.abs(distance) < 1e4)) return null;
  const [u, v] = [0.5 - distance * a, 0.5 - distance * b];
  return [...place(axes, u - 2 * b, v + 2 * a), ...place(axes, u + 2 * b, v - 2 * a)].map((x) => x.toFixed(2));
};

// The dot on the loss curve; a loss of 0 has no place on a log scale: at the axis.
const dot = (axes, iteration, loss) => {
  const scale = axes.log ? Math.log10 : Number;
  const height = (scale(Math.max(loss, axes.y0)) - scale(axes.y0)) / (scale(axes.y1) - scale(axes.y0));
  return place(axes, (iteration - axes.x0) / (axes.x1 - axes.x0), height).map((x) => x.toFixed(2));
};

// A number with so many significant digits, spelled as in the tables: with an exponent below 0.0001 and from 10^count on.
const digits = (value, count) => {
  const [mantissa, exponent] = value.toExponential(count - 1).split("e");
  if (exponent >= -4 && exponent < count) return String(Number(value.toPrecision(count)));
  return `${Number(mantissa)}e${exponent[0]}${exponent.slice(1).padStart(2, "0")}`;
};

for (const player of document.querySelectorAll(".player")) {
  const { axes, columns, rows } = JSON.parse(player.querySelector("script").textContent);
  const slider = player.querySelector("input");
  const button = player.querySelector("button");
  const output = player.querySelector("output");
  const name = player.dataset.experiment;
  const line = document.querySelector(`#${name}-fit-moving path`); // null where a picture of all features has none
  const mark = document.querySelector(`#${name}-loss-moving use`);
  const shown = columns.slice(columns.indexOf("loss") + 1, -3); // parameters
  let timer = null;

  const show = () => {
    const row = rows[slider.value];
    const at = (column) => row[columns.indexOf(column)];
    const ends = at("p") === null ? null : segment(axes.fit, at("p"), at("q"), at("r"));
    if (line) line.style.strokeOpacity = ends ? 1 : 0;
    if (line && ends) line.setAttribute("d", `M ${ends[0]} ${ends[1]} L ${ends[2]} ${ends[3]}`);
    const [x, y] = dot(axes.loss, at("iteration"), at("loss"));
    mark.setAttribute("x", x);
    mark.setAttribute("y", y);
    const parameters = shown.map((column) => `${column} = ${digits(at(column), 4)}`).join(", ");
    output.textContent = `iteration ${at("iteration")}: loss ${digits(at("loss"), 6)}, ${parameters}`;
    slider.setAttribute("aria-valuetext", output.textContent);
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
  };
  const play = () => {
    if (Number(slider.value) === rows.length - 1) slider.value = 0;
    show();
    button.textContent = "Pause";
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      show();
      if (Number(slider.value) === rows.length - 1) stop();
    }, Math.max(30, Math.min(500, 8000 / rows.length))); // milliseconds; about 8 seconds in all, less for few frames, more for many
  };
  button.addEventListener("click", () => (timer === null ? play() : stop()));
  slider.addEventListener("input", () => {
    stop();
    show();
  });
  show();
}

// A formula wider than the page scrolls, and so does the text of many parameters; only then must the keyboard reach it.
const scrolling = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth || target.scrollHeight > target.clientHeight) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
for (const part of document.querySelectorAll(".formula, output")) scrolling.observe(part);
