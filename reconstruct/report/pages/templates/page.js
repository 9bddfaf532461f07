"use strict";
// Without this script the page is complete: pictures stand side by side.
document.documentElement.classList.add("js");

for (const slider of document.querySelectorAll(".compare input")) {
  const move = () => {
    slider.parentElement.style.setProperty("--cut", slider.value + "%");
    slider.setAttribute("aria-valuetext", slider.value + " % original");
  };
  slider.addEventListener("input", move);
  // A browser may keep a slider's place when a page is loaded again.
  move();
}

for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      const range = document.createRange();
      range.selectNodeContents(code);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}
