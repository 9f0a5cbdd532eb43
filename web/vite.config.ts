import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

// Names without hashes, so that a rebuild of the same source gives the same bytes under the same paths.
export default defineConfig({
  plugins: [svelte()],
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
