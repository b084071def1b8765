// The front end of a meter: shows the HTML that Python made, with all text in it escaped there.

function render({ model, el }) {
  const draw = () => {
    el.innerHTML = model.get("html");
  };
  model.on("change:html", draw);
  draw();
  return () => model.off("change:html", draw);
}

export default { render };
