// Shows the API; asks for a token first where the service wants one. The token lives in this page only.
const entrance = document.getElementById("entrance");
const message = document.getElementById("message");

async function show(token) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch("/openapi.json", { headers });
  if (!answer.ok) {
    const problem = await answer.json();
    entrance.hidden = false;
    message.textContent = token || answer.status !== 401 ? problem.detail : "";
    return;
  }
  entrance.hidden = true;
  const spec = await answer.json();
  document.title = spec.info.title;
  const ui = SwaggerUIBundle({
    spec,
    dom_id: "#api",
    deepLinking: true,
    validatorUrl: null,
    onComplete: () => token && ui.preauthorizeApiKey("bearer", token),
  });
}

entrance.addEventListener("submit", (event) => {
  event.preventDefault();
  show(document.getElementById("token").value);
});

show("");
