// Everything this project has is beside it; the database is the URL in DATABASE_URL.
module.exports = { client: "pg", connection: process.env.DATABASE_URL, migrations: { directory: `${__dirname}/migrations` } };
