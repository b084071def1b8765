// What a front end makes: elements of the page, and outputs of the notebook in which a widget has become a form that stays.

const VIEW = "application/vnd.jupyter.widget-view+json";

function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

/** The places of the widget with this model id in the notebook: [outputs, index] for each. */
function placesOf(model, id) {
  const cells = [...(model.widget_manager?.context?.model?.cells ?? [])];
  return cells.flatMap(({ outputs }) =>
    Array.from({ length: outputs?.length ?? 0 }, (_, index) => [outputs, index]).filter(
      ([, index]) => outputs.get(index).data[VIEW]?.model_id === id,
    ),
  );
}

/** Put the bundle into the notebook, as the kernel would have done. */
function keep(model, id, data) {
  for (const [outputs, index] of placesOf(model, id)) outputs.set(index, { output_type: "display_data", data, metadata: {} });
}
