// Adds a field to each long table that hides the rows of other names.
for (const box of document.querySelectorAll("[data-search]")) {
  const field = document.createElement("input");
  field.type = "search";
  field.placeholder = "search a class";
  field.setAttribute("aria-label", field.placeholder);
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase();
    for (const row of box.querySelectorAll("tbody tr"))
      row.hidden = !row.querySelector(".name").textContent.toLowerCase().includes(wanted);
  });
  box.before(field);
}
