// ws: a watcher of `/TOPIC` gets what is published to the Redis channel `tasks:TOPIC`. `node ws.mjs PORT REDIS_PORT`.
import { createServer } from 'node:http'
import { createRequire } from 'node:module'

const require = createRequire(process.env.RIVALS_MODULES + '/')
const { WebSocketServer } = require('ws')
const { createClient } = require('redis')
const [port, redisPort] = process.argv.slice(2).map(Number)
const PREFIX = 'tasks:'

const watchers = new Map()
const http = createServer()
const sockets = new WebSocketServer({ server: http, perMessageDeflate: false, clientTracking: false })
sockets.on('connection', (socket, request) => {
  const topic = request.url.slice(1)
  let watching = watchers.get(topic)
  if (!watching) watchers.set(topic, (watching = new Set()))
  watching.add(socket)
  socket.on('error', () => {})
  socket.on('close', () => {
    watching.delete(socket)
    if (!watching.size) watchers.delete(topic)
  })
})

const redis = createClient({ url: `redis://127.0.0.1:${redisPort}` })
await redis.connect()
// Buffers: what arrives is sent as it is, and nothing is decoded.
await redis.pSubscribe(PREFIX + '*', (message, channel) => {
  const watching = watchers.get(channel.toString().slice(PREFIX.length))
  if (watching) for (const socket of watching) socket.send(message, { binary: false })
}, true)
http.listen({ host: '127.0.0.1', port, backlog: 4096 })
