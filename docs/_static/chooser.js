// The chooser of start/which_loss: two questions, the answers of which are read
// from the table below them, so that there is one table and no second list.
// It needs no server, and without it the table is still there.

document.addEventListener("DOMContentLoaded", () => {
  const place = document.getElementById("chooser");
  const table = place?.parentElement.querySelector("table");
  if (!table) return;

  const rows = [...table.tBodies[0].rows].map((row) => {
    const [asked, labels, layer, loss, more] = row.cells;
    return {
      asked: asked.textContent.trim(),
      labels: labels.textContent.trim(),
      layer: layer.textContent.trim(),
      loss: loss.textContent.trim(),
      link: more.querySelector("a"),
      lossLink: loss.querySelector("a"),
      row,
    };
  });

  const make = (tag, text, parent) => {
    const made = document.createElement(tag);
    if (text) made.textContent = text;
    parent?.append(made);
    return made;
  };

  // `losses.X` as it is written in a program.
  const full = (code) =>
    code.replace(/\b(losses|layers)\./g, "keras_xent.$1.")
        .replace(/(^|[^.\w])Dense\(/g, "$1keras.layers.Dense(");

  const question = (title, options, chosen, choose) => {
    const field = make("fieldset");
    make("legend", title, field);
    for (const option of options) {
      const label = make("label", "", field);
      const input = make("input", "", label);
      input.type = "radio";
      input.name = title;
      input.checked = option === chosen;
      input.addEventListener("change", () => choose(option));
      label.append(" " + option);
    }
    return field;
  };

  const answer = (found) => {
    const shown = make("div");
    shown.className = "chooser-answer";
    shown.setAttribute("aria-live", "polite");
    const code =
      `outputs = ${full(found.layer)}\n` +
      `model = keras.Model(inputs, outputs)\n` +
      `model.compile("adam", loss=${full(found.loss)})`;
    make("code", code, make("pre", "", shown));
    const more = make("p", "Read on: ", shown);
    more.append(found.link.cloneNode(true));
    if (found.lossLink) more.append(" · ", found.lossLink.cloneNode(true));
    return shown;
  };

  let asked = rows[0].asked;
  let labels = rows[0].labels;

  const show = () => {
    const fitting = rows.filter((each) => each.asked === asked);
    const found = fitting.find((each) => each.labels === labels) ?? fitting[0];
    labels = found.labels;
    const first = question(
      "What is asked?",
      [...new Set(rows.map((each) => each.asked))],
      asked,
      (value) => { asked = value; show(); focus(0); },
    );
    const second = question(
      "What are the labels?",
      fitting.map((each) => each.labels),
      labels,
      (value) => { labels = value; show(); focus(1); },
    );
    place.replaceChildren(first, second, answer(found));
    for (const each of rows) {
      each.row.classList.toggle("chosen", each === found);
    }
  };

  // The fields are made anew: whoever goes by the keyboard stays where they are.
  const focus = (field) =>
    place.querySelectorAll("fieldset")[field]
         .querySelector("input:checked").focus();

  show();
});
