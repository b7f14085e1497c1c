// The schema to push is the one that SCHEMA names.
module.exports = { dialect: "postgresql", schema: `./${process.env.SCHEMA}`, dbCredentials: { url: process.env.DATABASE_URL } };
