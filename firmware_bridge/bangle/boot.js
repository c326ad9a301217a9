/* Runs before every app: off its charger, the watch goes back to fallwatch, whatever it was left in. */
Bangle.on("charging", function (on) {
  if (!on && global.__FILE__ != "fallwatch.app.js") load("fallwatch.app.js");
});
