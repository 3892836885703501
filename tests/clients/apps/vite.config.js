// Builds each page: those of docs/clients.md, which the tests write to src/ and public/, and the package's example.

import { defineConfig } from 'vite';
import react from '@vitejs/plugin-react';
import vue from '@vitejs/plugin-vue';
import { svelte } from '@sveltejs/vite-plugin-svelte';

const pages = ['react.html', 'vue.html', 'svelte.html', 'example/index.html'];

export default defineConfig(({ command }) => ({
  base: './',
  logLevel: 'warn',
  plugins: [react(), vue(), svelte()],
  // Of the development server: its pages have the token from the tests' own site.
  cacheDir: process.env.VITE_CACHE,
  server: { proxy: { '/token': process.env.SITE ?? '' }, fs: { strict: false } },
  build: command === 'build' ? { rollupOptions: { input: pages } } : {},
}));
