// A browser starts no worker from a page that was opened as a file. There the search's script runs
// in a hidden frame, which answers as a worker would. A page from a server keeps its workers.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    #asked = [];
    #inside = null;

    constructor(address) {
      super();
      const own = new URL(address, document.baseURI);
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.title = "search";
      document.body.append(frame);
      const inside = frame.contentWindow;
      const load = (source) =>
        new Promise((loaded, failed) => {
          const script = inside.document.createElement("script");
          script.src = new URL(source, own); // a worker's scripts lie beside it
          script.onload = loaded;
          script.onerror = failed;
          inside.document.head.append(script);
        });
      inside.importScripts = (...sources) => Promise.all(sources.map(load));
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      load(own).then(() => {
        this.#inside = inside;
        this.#asked.splice(0).forEach((data) => this.postMessage(data));
      });
    }

    postMessage(data) {
      if (this.#inside) this.#inside.dispatchEvent(new MessageEvent("message", { data }));
      else this.#asked.push(data);
    }
  };
}
