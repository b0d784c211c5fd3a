// Makes this page follow what is saved on the server. For now by loading it again.
(() => {
  const tag = document.currentScript;
  const mine = new Set(tag.dataset.sources.split(" ").map(decodeURIComponent));
  const scripted = tag.dataset.made === "script";
  const source = new EventSource(new URL("events?since=" + tag.dataset.rpyserve, tag.src));
  const look = (event) => {
    const change = JSON.parse(event.data);
    const hit = change.lost || change.urls.some((url) => mine.has(decodeURIComponent(url)));
    if (hit || (scripted && (change.all || change.data))) location.reload();
  };
  source.addEventListener("hello", look);
  source.addEventListener("change", look);
})();
