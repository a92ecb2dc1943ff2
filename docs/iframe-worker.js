// The theme searches in a worker, which browsers refuse to pages that were opened from a disk: there, a hidden frame of
// the same page takes its place. It has what the theme uses of a worker: a URL, postMessage and messages. (The theme's
// own remedy is a script from a CDN; with this file's name among the polyfills, it leaves that out.)
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      frame.title = "search"
      document.body.append(frame)
      this.inside = frame.contentWindow
      this.waiting = [] // messages that come before the script has loaded
      this.inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      const script = frame.contentDocument.createElement("script")
      script.src = new URL(url, location.href).href
      script.onload = () => {
        for (const message of this.waiting) this.inside.dispatchEvent(message)
        this.waiting = null
      }
      frame.contentDocument.body.append(script)
    }

    postMessage(data) {
      const message = new MessageEvent("message", { data })
      if (this.waiting) this.waiting.push(message)
      else this.inside.dispatchEvent(message)
    }
  }
}
