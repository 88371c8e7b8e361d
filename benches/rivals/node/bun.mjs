// Bun, whose WebSockets are µWebSockets: a watcher of `/TOPIC` gets what is published to the Redis channel
// `tasks:TOPIC`; the fan-out is the server's own `publish`. `bun bun.mjs PORT REDIS_PORT`.
import { serve } from 'bun'
import { createRequire } from 'node:module'

const { createClient } = createRequire(process.env.RIVALS_MODULES + '/')('redis')
const [port, redisPort] = process.argv.slice(2).map(Number)
const PREFIX = 'tasks:'

let server
// Bun's own client of Redis subscribes to no patterns.
const redis = createClient({ url: `redis://127.0.0.1:${redisPort}` })
await redis.connect()
await redis.pSubscribe(PREFIX + '*', (message, channel) => server?.publish(channel.slice(PREFIX.length), message))
// Only now: whoever connects is watching.
server = serve({
  hostname: '127.0.0.1',
  port,
  fetch(request, server) {
    const topic = new URL(request.url).pathname.slice(1)
    return server.upgrade(request, { data: { topic } }) ? undefined : new Response(null, { status: 400 })
  },
  websocket: {
    perMessageDeflate: false,
    open(socket) {
      socket.subscribe(socket.data.topic)
    },
    message() {},
  },
})
