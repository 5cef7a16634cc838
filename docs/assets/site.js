// Narrows the list of experiments to the rows that hold every word typed.
document.querySelectorAll("input.narrow").forEach((input) => {
  const rows = document.querySelectorAll(".narrowed tbody tr");
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    rows.forEach((row) => {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    });
  });
});
