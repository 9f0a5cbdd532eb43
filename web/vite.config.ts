import { svelte } from "@sveltejs/vite-plugin-svelte";
import { gzipSync, strToU8 } from "fflate";
import { defineConfig, type Plugin } from "vite";

/** Lays a .gz beside each script and style sheet. fflate, because zlib's bytes differ between processors. */
const packed: Plugin = {
  name: "packed",
  apply: "build",
  enforce: "post",
  generateBundle(_, bundle) {
    for (const [name, file] of Object.entries(bundle)) {
      if (!/\.(js|css)$/.test(name)) continue;
      const source = file.type === "chunk" ? file.code : file.source;
      const bytes = typeof source === "string" ? strToU8(source) : source;
      this.emitFile({ type: "asset", fileName: `${name}.gz`, source: gzipSync(bytes, { level: 9, mtime: 0 }) });
    }
  },
};

// Names without hashes, so that a rebuild of the same source gives the same bytes under the same paths.
export default defineConfig({
  plugins: [svelte(), packed],
  build: {
    target: "es2023",
    modulePreload: { polyfill: false },
    cssCodeSplit: false,
    // Nothing becomes a data: address, which the page's content policy would refuse.
    assetsInlineLimit: 0,
    rolldownOptions: {
      output: {
        entryFileNames: "assets/rbee.js",
        chunkFileNames: "assets/[name].js",
        assetFileNames: "assets/rbee[extname]",
      },
    },
  },
  server: {
    proxy: {
      "/rbee.v1.": {
        target: process.env.RBEE_QUEEN ?? "http://127.0.0.1:7833",
        changeOrigin: true,
        // The queen refuses origins other than its own.
        configure: (proxy) => proxy.on("proxyReq", (request) => request.removeHeader("origin")),
      },
    },
  },
});
