exports.up = async (knex) => {
  await knex.schema.createTable("cars", (table) => {
    table.increments("id");
    table.string("plate", 12).notNullable().unique();
    table.decimal("price", 8, 2).defaultTo(1);
  });
  await knex.schema.createTable("rentals", (table) => {
    table.bigIncrements("id");
    table.integer("car").notNullable().references("cars.id").onDelete("CASCADE");
    table.timestamps(true, true);
  });
};
exports.down = async (knex) => {
  await knex.schema.dropTable("rentals");
  await knex.schema.dropTable("cars");
};
