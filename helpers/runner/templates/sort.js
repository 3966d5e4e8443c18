// Sort the runs of a sweep by the column whose name is clicked: by the first number of its first line.
const table = document.querySelector(".sorted");
table?.tHead.addEventListener("click", ({ target }) => {
  const down = target.getAttribute("aria-sort") !== "descending";
  const value = (run) => {
    const number = parseFloat(run.rows[0].cells[target.cellIndex].innerText);
    return Number.isNaN(number) ? Infinity : down ? -number : number;
  };
  for (const name of target.parentNode.cells) name.removeAttribute("aria-sort");
  target.setAttribute("aria-sort", down ? "descending" : "ascending");
  table.append(...[...table.tBodies].sort((one, other) => value(one) - value(other)));
});
