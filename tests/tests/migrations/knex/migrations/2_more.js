exports.up = async (knex) => {
  await knex.schema.alterTable("cars", (table) => {
    table.string("colour").defaultTo("white");
    table.index("colour");
  });
  await knex.schema.createTable("services", (table) => {
    table.increments("id");
    table.integer("car").references("cars.id");
  });
};
exports.down = async (knex) => {
  await knex.schema.dropTable("services");
  await knex.schema.alterTable("cars", (table) => table.dropColumn("colour"));
};
